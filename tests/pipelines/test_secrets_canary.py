"""Every credential is a canary: through failures, successes, kill -9 and a bug, none of its forms may be found anywhere that stays."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from attrs import define, field
from faultproxy import FAULTS, FaultProxy
from s3_server import ALONE, S3Server

HERE = Path(__file__).parent
WEBHOOK = HERE.parents[1] / "plugins_contrib" / "lakeward-webhook" / "src"
YAML = """
name: canary
source: {use: sqlite, path: sensor.db}
sinks:
  lake:
    use: s3
    bucket: ${BUCKET}
    endpoint_url: ${STORE}
    access_key_id: ${env:KEY_ID}
    secret_access_key: ${env:SECRET_KEY}
    session_token: ${env:SESSION}
  pager: {use: webhook, url: '${env:PAGER_URL}', token: '${env:PAGER_TOKEN}', headers: {X-Key: '${env:PAGER_KEY}'}, timeout: 2s}
batch: {rows: 20, wait: 50ms}
"""
WITH_A_BUG = """
import os, sys
from lakeward.cli import main
from lakeward_plugins.sinks.s3 import S3Sink
def encoding(sink):
    raise RuntimeError(f"{sink.secret_access_key.reveal()} {os.environ['PAGER_TOKEN']!r} {os.environ['PAGER_URL']}")
S3Sink.encoding = property(encoding)
main()
"""


def forms(value: str) -> set[str]:
    """What a value looks like as it is, in a repr, in JSON, in a URL and, wherever it begins, in base64."""
    texts = {
        value,
        repr(value)[1:-1],
        repr("'" + value)[2:-1],
        json.dumps(value)[1:-1],
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
    }
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value.encode()).decode().rstrip("=")
        inner = encoded[4 if shift else 0 : -1]  # the letters at the edges depend on what is beside the value
        texts |= {inner, inner.translate(str.maketrans("+/", "-_")), json.dumps(inner).replace("/", "\\/")[1:-1]}
    return texts


def found_in(text: bytes, canaries: dict[str, str]) -> set[str]:
    return {name for name, value in canaries.items() if any(form.encode() in text for form in forms(value))}


# -- a receiver that tells everything that it hears --------------------------------------------------------------------


@define
class Receiver:
    """Answers with these statuses, one each, then with 200, and never takes row 41; every answer repeats the request's head."""

    statuses: list[int] = field(factory=list)
    taken: int = 0
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
            status = state.statuses.pop(0) if state.statuses else 400 if 41 in [row["id"] for row in rows] else 200
            state.taken += status == 200
            body = f"{self.headers['Authorization']} {self.headers['X-Key']} {self.path}".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are part of the test
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()
        thread.join()


# -- the program -------------------------------------------------------------------------------------------------------


@define
class Program:
    """The real command line in a folder of its own. `left` is what was there after each run: all files, and what it printed."""

    folder: Path
    environment: dict[str, str]
    left: dict[str, bytes] = field(factory=dict)

    def run(self, *arguments: str, codes: tuple[int, ...], program: tuple[str, ...] = ("-m", "lakeward")) -> int:
        command = [sys.executable, *program, *arguments]
        ran = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, timeout=300, check=False)
        self._look(ran.stdout + ran.stderr)
        assert ran.returncode in codes, ran.stderr.decode()
        return ran.returncode

    def run_and_kill(self, receiver: Receiver, *arguments: str) -> None:
        """Killed with -9 when the receiver has taken something; what state.db has not checkpointed stays in its WAL."""
        command = [sys.executable, "-m", "lakeward", *arguments]
        log_file = self.folder / "killed.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        end = time.monotonic() + 300
        while not receiver.taken and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert receiver.taken
        self._look(log_file.read_bytes())

    def _look(self, printed: bytes) -> None:
        """At state.db and its WAL, spool, logs, bug reports."""
        look = len({name.partition(" ")[0] for name in self.left})
        self.left[f"{look} printed"] = printed
        for path in self.folder.rglob("*"):
            if path.is_file():
                self.left[f"{look} {path.relative_to(self.folder)}"] = path.read_bytes()


def with_webhook(folder: Path) -> str:
    """A PYTHONPATH on which lakeward-webhook is installed, as pip would leave it."""
    paths = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(WEBHOOK)]
    try:
        distribution("lakeward-webhook")
    except PackageNotFoundError:
        info = folder / "lakeward_webhook-0.1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lakeward-webhook\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text("[lakeward]\nwebhook = lakeward_webhook\n")
        paths.append(str(folder))
    return os.pathsep.join(paths)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    folder = tmp_path / "home"
    (folder / "tmp").mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(YAML)
    database = sqlite3.connect(folder / "sensor.db")
    database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY, timestamp TEXT, temperature REAL)")
    rows = [(n, f"2026-01-01T00:00:{n:02d}Z", n / 7) for n in range(1, 60)]
    database.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()
    known = os.environ | ALONE | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": with_webhook(tmp_path / "site")}
    return Program(folder, known)


@pytest.mark.slow
def test_no_canary_is_found_in_anything_that_stays(program: Program, s3: S3Server, receiver: Receiver) -> None:
    key, secret, session = s3.temporary
    right = {
        "KEY_ID": key, "SECRET_KEY": secret, "SESSION": session, "PAGER_KEY": "canary'key of&the?pager",
        "PAGER_TOKEN": 'canary"token\\of/the+pager=', "PAGER_URL": "/canary+url%2Fof-the-pager?key=canary&more=%22",
    }  # fmt: skip
    wrong = {"SECRET_KEY": 'canary"wrong\\secret/of+the=lake', "SESSION": 'canary"wrong\\session/of+the=lake'}
    path = right["PAGER_URL"]
    with FaultProxy(s3.url, hang=2) as store, FaultProxy(receiver.url, hang=2) as pager:
        right["PAGER_URL"] = pager.url + path
        settings = {"STORE": store.url, "BUCKET": s3.bucket()}
        json_logs, text_logs = (("--log-level", "debug", "--log-format", form) for form in ("json", "text"))
        run = ("run", "pipeline.yaml", "--once")

        program.environment |= right | wrong | settings  # nothing goes through
        receiver.statuses = [401]
        program.run(*run, *json_logs, codes=(1,))
        program.run(*run[:2], "--dry-run", *text_logs, "--state-dir", "none", codes=(2,))
        program.environment |= right
        program.run(*run, *json_logs, "--state-dir", "bug", codes=(70,), program=("-c", WITH_A_BUG))
        receiver.statuses = [500]
        program.run_and_kill(receiver, *run[:2], *json_logs)
        receiver.statuses = [503]
        for proxy in (store, pager):
            proxy.script(*[fault for fault in FAULTS if fault != "429_wait"])
        attempts = iter([json_logs, text_logs] * 5)  # a run ends after some failures in a row
        while program.run(*run, *next(attempts), codes=(0, 1), program=(str(HERE / "impatient_lakeward.py"), "0.05")):
            pass
        for command in (["status"], ["status", "--json"], ["check"], ["explain"], ["explain", "--json"]):
            program.run(command[0], "pipeline.yaml", *command[1:], codes=(0,))

    canaries = right | {"path": path, "query": path.partition("?")[2]} | {f"wrong {name}": value for name, value in wrong.items()}
    assert {name: found for name, text in program.left.items() if (found := found_in(text, canaries))} == {}
    for name in (r"/spool/.*\.parquet", r"/state\.db", r"/state\.db-wal", r"/history\.jsonl", r"tmp/lakeward-bug-.*\.log", "killed.log"):
        assert [seen for seen in program.left if re.search(f"{name}$", seen)], f"there was no {name}"
    for name in ("printed", r"tmp/lakeward-bug-.*\.log", r"/history\.jsonl"):  # they were there, to be masked
        assert [seen for seen, text in program.left.items() if re.search(f"{name}$", seen) and b"***" in text], name
    database = sqlite3.connect(program.folder / ".lakeward" / "canary" / "state.db")
    assert database.execute("SELECT count(*) FROM dead_letters WHERE detail LIKE '% answered 400 to rows %***%'").fetchone()[0] >= 1
    database.close()
    assert len(s3.objects(settings["BUCKET"])) == 3


@pytest.mark.parametrize(
    "disguise", [str, repr, json.dumps, quote, quote_plus, lambda text: base64.b64encode(f"me:{text}!".encode()).decode()]
)
def test_a_canary_would_be_found(disguise: object) -> None:
    value = 'canary"token\\of/the+pager='
    assert callable(disguise)
    assert found_in(f"before {disguise(value)} after".encode(), {"it": value}) == {"it"}
    assert found_in(b"before canary and token after", {"it": value}) == set()
