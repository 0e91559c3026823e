"""A second real S3: Ceph's radosgw from Debian on loopback, with one monitor and one OSD that keeps all in memory.

It checks signatures and checksums by itself, answers 403 for what is not there to those who may not list, and is what many run in their own
cellar. Needs the packages `radosgw ceph-mon ceph-osd ceph-common`, and a minute; nothing of it stays.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from attrs import frozen
from s3_server import S3Server

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool", "ceph-authtool")
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$cluster-$name.asok
log file = {folder}/$name.log
auth allow insecure global id reclaim = false
mon allow pool size one = true
mon data avail crit = 1
mon max pg per osd = 1000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
osd class load list = *
osd class default list = *
memstore device bytes = 2147483648
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{s3}
"""
POLICY = "arn:aws:iam:::user/"
ALL = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")


@frozen
class RadosGW(S3Server):
    """The same for a store that has no IAM: who is allowed what is said by a policy of each bucket that is there."""

    like_amazon: ClassVar[bool] = False
    folder: Path = Path()

    def user(self, *actions: str, resource: str = "*") -> tuple[str, str]:
        """Access key id and secret access key of a new user who may do just this."""
        name, s3 = f"u{uuid.uuid4().hex[:8]}", self.client()
        key, secret = f"KEY{name}".upper(), f"secret-of-{name}"
        _run(
            self.folder,
            "radosgw-admin",
            "user",
            "create",
            "--uid",
            name,
            "--display-name",
            name,
            "--access-key",
            key,
            "--secret-key",
            secret,
        )
        for bucket in s3.list_buckets()["Buckets"]:
            whole = f"arn:aws:s3:::{bucket['Name']}"
            if resource == "*" or resource.startswith(whole):
                places = [whole, f"{whole}/*"] if resource == "*" else [resource]
                allowed = {"Effect": "Allow", "Principal": {"AWS": [POLICY + name]}, "Action": list(actions), "Resource": places}
                s3.put_bucket_policy(Bucket=bucket["Name"], Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
        return key, secret


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def radosgw() -> Iterator[S3Server]:
    """The store for the time being, with a user who may do everything in buckets of his own."""
    with tempfile.TemporaryDirectory() as name:
        folder, started = Path(name), list[subprocess.Popen[bytes]]()
        try:
            yield _start(folder, started)
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGKILL)
                process.wait()


def _start(folder: Path, started: list[subprocess.Popen[bytes]]) -> S3Server:
    v2, v1, s3 = _free_ports(3)
    fsid, configuration, keyring = str(uuid.uuid4()), folder / "ceph.conf", folder / "keyring"
    configuration.write_text(CONFIGURATION.format(folder=folder, fsid=fsid, v2=v2, v1=v1, s3=s3))
    for part in ("mon", "osd"):
        (folder / part).mkdir()
    _run(folder, "ceph-authtool", "--create-keyring", str(keyring), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    for user in ("client.admin", "osd.0", "client.rgw"):
        _run(folder, "ceph-authtool", str(keyring), "--gen-key", "-n", user, *ALL)
    addresses = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
    _run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, str(folder / "monmap"))
    _run(folder, "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"), "--keyring", str(keyring))
    started.append(_process(folder, "ceph-mon", "-f", "-i", "a"))
    osd = str(uuid.uuid4())
    _run(folder, "ceph", "--connect-timeout", "60", "osd", "new", osd)
    _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    started.append(_process(folder, "ceph-osd", "-f", "-i", "0"))
    started.append(_process(folder, "radosgw", "-f", "-n", "client.rgw"))
    server = RadosGW(f"http://127.0.0.1:{s3}", "AKIDOFTHELAKE", "secret-of-the-lake", folder=folder)
    _until_it_answers(server.url, started[-1], folder)
    _make_user(folder, "lake", server.access_key_id, server.secret_access_key)
    return server


def _make_user(folder: Path, name: str, key: str, secret: str) -> None:
    keys = ("--access-key", key, "--secret-key", secret)
    _run(folder, "radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys)


def _until_it_answers(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    opener, end = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            opener.open(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"radosgw did not start: {[log.read_text()[-500:] for log in folder.glob('*.out')]}")


def _run(folder: Path, *command: str) -> None:
    ended = subprocess.run([command[0], "-c", str(folder / "ceph.conf"), *command[1:]], check=False, capture_output=True, timeout=120)
    if ended.returncode:
        raise RuntimeError(f"{command[0]} failed: {ended.stderr.decode()[-1000:]}")


def _process(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    with (folder / f"{command[0]}.out").open("wb") as out:
        line = [command[0], "-c", str(folder / "ceph.conf"), *command[1:]]
        return subprocess.Popen(line, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=os.environ)


def _free_ports(many: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(many)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
