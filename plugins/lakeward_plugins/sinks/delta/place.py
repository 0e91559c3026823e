"""Where a Delta table is, a local folder or S3: its files and syncs, and errors as what the kernel knows."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from attrs import frozen
from deltalake import DeltaTable, PostCommitHookProperties
from deltalake.exceptions import DeltaError, DeltaProtocolError, SchemaMismatchError, TableNotFoundError

from lakeward import OptionError, Refused, Rejected, Retry
from lakeward.durable import make_folder, sync
from lakeward.folders import NO_LINKS, cannot_write
from lakeward.notes import Note
from lakeward.wording import first_line
from lakeward_plugins.sinks.delta.notes import has_note
from lakeward_plugins.sinks.delta.store import Store, is_of_store, trouble

LOG = "_delta_log"
# delta-rs would make a checkpoint with a commit and remove the log before it, with nothing synced: a power cut could take the table
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
S3, ESCAPE = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]+(/[A-Za-z0-9._=-]+)+"), re.compile("%[0-9A-Fa-f]{2}")
OS_ERROR = re.compile(r"os error (\d+)")


@frozen
class Place:
    """A folder, or a prefix in a bucket."""

    uri: str
    """An absolute path, or `s3://bucket/prefix`."""
    store: Store | None = None
    """When it is in S3."""

    def __attrs_post_init__(self) -> None:
        if "://" in self.uri and not S3.fullmatch(self.uri):
            raise OptionError("path", f"{self.uri!r} is neither a folder nor like s3://bucket/table, of letters, digits and ._=-")
        if self.local and (escape := ESCAPE.search(self.uri)):  # parts of delta-rs decode it, and others do not
            raise OptionError("path", f"delta-rs takes {escape[0]!r} in {self.uri} for an escape; choose a path without it")

    def options(self) -> dict[str, str] | None:
        """What delta-rs must know to reach it; secrets are among them."""
        return self.store.options() if self.store else None

    @property
    def local(self) -> Path | None:
        """The folder, when it is one."""
        return None if "://" in self.uri else Path(self.uri)

    def load(self) -> DeltaTable | None:
        """The newest version of the table, nothing when there is none yet."""
        folder = self.local
        # in this order: another first writer may make the log, and then files, between the two looks
        if folder and folder.exists() and any(folder.iterdir()) and not (folder / LOG).is_dir():
            raise Refused(f"{folder} holds other files and is no Delta table; give this sink an empty or a new folder")
        try:
            return DeltaTable(self.uri, storage_options=self.options())
        except TableNotFoundError:
            return None
        except DeltaError as error:
            if folder is None or OS_ERROR.search(str(error)):
                raise
            hint = f"if the power was cut, look whether the newest file in {folder / LOG} is cut short"
            raise Refused(f"{folder} cannot be read as a Delta table: {first_line(error)}; {hint}") from error

    def has_commit(self, version: int, note: Note) -> bool:
        """Whether we made this version of the table that is there now: not when it was removed, or made anew, in the meantime."""
        name = f"{LOG}/{version:020d}.json"
        commit = self.store.find(name) if self.store else _find(Path(self.uri, name))
        return commit is not None and has_note(commit, note)

    def prepare(self) -> None:
        """Before the first commit: what a killed first delivery leaves is then known to be ours."""
        if self.local:
            make_folder(self.local / LOG)
        elif self.store:
            self.store.require_conditional()

    def put(self, content: Path | bytes, name: str, sha256: str) -> int:
        """A file, or bytes, under a name in the table that nothing else has; an earlier attempt may have been there. Gives its size."""
        if self.store:
            self.store.put(content, name, sha256)
        elif self.local and isinstance(content, Path):
            _link(content, self.local / name, sha256)
        elif self.local and isinstance(content, bytes):
            make_folder((self.local / name).parent)
            _write(content, self.local / name)
        return content.stat().st_size if isinstance(content, Path) else len(content)

    def get(self, name: str) -> bytes:
        """A file of the table."""
        return self.store.get(name) if self.store else Path(self.uri, name).read_bytes()

    def sync_commits(self, versions: range) -> None:
        """Make these commits durable: data files and their folders before the log. delta-rs syncs nothing; S3 has it done."""
        if not self.local:
            return
        log, data = self.local / LOG, set[Path]()
        entries = [entry for version in versions for entry in (log / f"{version:020d}.json", log / f"{version:020d}.checkpoint.parquet")]
        for entry in entries:
            with suppress(FileNotFoundError):
                actions = map(json.loads, entry.read_text().splitlines()) if entry.suffix == ".json" else ()
                data |= {self.local / unquote(action["add"]["path"]) for action in actions if "add" in action}
        folders = {parent for file in data for parent in file.parents if parent.is_relative_to(self.local)}
        for target in (*data, *folders, *entries, log / "_last_checkpoint", log):
            with suppress(FileNotFoundError):  # no checkpoint, or another writer compacted the table in the meantime
                sync(target)

    def require_whole(self, table: DeltaTable) -> None:
        """A commit is there, but was it synced? Sync all that is not, then look for files that a power cut took."""
        if not self.local:
            return
        os.sync()
        files = pa.table(table.get_add_actions(flatten=True))
        for name, size in zip(files["path"].to_pylist(), files["size_bytes"].to_pylist(), strict=True):
            file = self.local / unquote(str(name))
            if "://" in str(name):  # of a table that was cloned without its files: it is not ours to sync
                continue
            if not file.exists() or file.stat().st_size != size:
                raise Refused(f"{file} should have {size} bytes and was cut short, probably by a power cut; restore the table or that file")

    @contextmanager
    def sorted_errors(self) -> Iterator[None]:
        """Errors of the disk, of S3 and of delta-rs, whose errors are texts, as what the kernel knows."""
        try:
            yield
        except (SchemaMismatchError, DeltaProtocolError) as error:
            raise Refused(f"{self.uri}: the table does not take the rows: {first_line(error)}") from error
        except Exception as error:
            if not (isinstance(error, (OSError, DeltaError)) or (self.store and is_of_store(error))):
                raise
            if "failed validation check" in str(error):  # a CHECK constraint, or NULL in a column that may not have it
                raise Rejected(f"{self.uri}: the table does not take the rows: {first_line(error)}") from error
            if self.store:
                self.store.forget()
            raise (_of_store(error, self.uri) if self.store else _of_disk(error, self.uri)) from None  # its cause holds whole answers


def _find(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _link(source: Path, target: Path, sha256: str) -> None:
    try:
        os.link(source, target)  # the content is synced already
    except FileExistsError:  # of an earlier attempt, or of another instance that has the same parcel in hand
        if not (target.samefile(source) or hashlib.sha256(target.read_bytes()).hexdigest() == sha256):
            _write(source.read_bytes(), target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _write(source.read_bytes(), target)
    os.utime(target)  # a parcel may have waited for weeks: whoever removes old files that no commit names must not take it for one
    sync(target.parent)  # also when it was there: an earlier attempt may have ended before this line


def _write(content: bytes, target: Path) -> None:
    """Whole and synced before it has its name; what an earlier attempt left there is the same."""
    part = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        sync(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    sync(target.parent)


def _of_disk(error: Exception, where: str) -> Exception:
    told = OS_ERROR.search(str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)  # delta-rs raises some as OSError without a number
    what = f"{getattr(error, 'filename', None) or where}: {os.strerror(number) if number else first_line(error)}"
    return cannot_write("the Delta table", what, number)


def _of_store(error: Exception, where: str) -> Exception:
    what, remedy, busy = trouble(str(error))
    return Refused(f"{where}: {what}; {remedy}") if remedy else Retry(f"{where}: {what}", throttled=busy)
