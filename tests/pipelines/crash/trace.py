"""The system calls by which a run changes the disk, as strace saw them."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from crash.program import PATIENCE, ended, start

STRACE = shutil.which("strace")
CALLS = (
    "openat,write,pwrite64,lseek,ftruncate,fsync,fdatasync,sync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "mkdir,mkdirat,sendfile,copy_file_range,fallocate"
)
UNSEEN = "writev,pwritev,pwritev2,truncate,symlink,symlinkat,rmdir,syncfs,sync_file_range"
"""Calls that would change the disk too, which the program does not use: strace watches them, and `events` refuses a trace with one."""
LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?(?: .*)?$")
BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
HANDLE = re.compile(r"^(\d+)<(.*)>$")


@frozen
class Event:
    """One change, in the order in which they were done."""

    kind: str
    """`open`, `write`, `truncate`, `sync`, `sync all`, `rename`, `link`, `unlink`, `mkdir`, `copy`."""
    thread: int
    path: str = ""
    other: str = ""
    """The new name, or where a copy comes from."""
    handle: int = -1
    """File descriptor; what `open` gives."""
    offset: int = -1
    """Where it writes; -1 is where the last write to the same handle ended."""
    size: int = 0
    """Of a truncated file, or bytes copied."""
    data: bytes = b""
    fresh: bool = False
    """The opened file is cut to nothing, or appended to, as `size` says."""


def record(folder: Path, arguments: Sequence[str], patches: Sequence[str] = (), seconds: float = 0.0) -> list[Event]:
    """Trace a run of the program in a folder; one that goes on is told to end after so many seconds."""
    assert STRACE
    file = folder / "trace.txt"
    watch = [STRACE, "-f", "-y", "-xx", "-s", "16000000", "--seccomp-bpf", "-e", f"trace={CALLS},{UNSEEN}", "-e", "signal=none"]
    life = start(folder, arguments, [*watch, "-o", str(file)], patches)
    if seconds:
        lock = folder / ".lakeward" / "crash" / "lock"
        _until_running(lock)
        time.sleep(seconds)
        os.kill(int(lock.read_text()), 15)
    ended(folder, life, 0, 143)
    return list(events(file, folder))


def _until_running(lock: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not (lock.exists() and lock.read_text().strip().isdecimal()):
        assert time.monotonic() < end, "the traced program did not begin"
        time.sleep(0.01)


def events(file: Path, folder: Path) -> Iterator[Event]:
    """The changes below a folder."""
    for thread, call, values, result, there in _calls(file):
        event = _event(thread, call, values, result, there, folder)
        if event and (event.kind == "sync all" or f"{event.path}/".startswith(f"{folder}/")):
            yield event


def _calls(file: Path) -> Iterator[tuple[int, str, list[str], int, str]]:
    """Calls that succeeded, at the moment when they were done."""
    begun: dict[str, str] = {}
    with file.open(errors="replace") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if first := BEGUN.match(line):
                begun[first[1]] = first[3]
                continue
            if rest := RESUMED.match(line):
                line = f"{rest[1]} {rest[2]}({begun.pop(rest[1])}{rest[3]}"
            if (call := LINE.match(line)) and int(call[4]) >= 0:
                yield int(call[1]), call[2], _split(call[3]), int(call[4]), _text(call[5] or "")


def _split(arguments: str) -> list[str]:
    """At commas; with -xx, none is inside of a text or a path."""
    return [part.strip() for part in arguments.split(",")] if arguments else []


def _text(shown: str) -> str:
    return _bytes(shown).decode(errors="replace")


def _bytes(shown: str) -> bytes:
    shown = shown.strip('"')
    return bytes.fromhex(shown.replace("\\x", "")) if shown.startswith("\\x") else shown.encode()


def _handle(shown: str) -> tuple[int, str]:
    match = HANDLE.match(shown)
    return (int(match[1]), _text(match[2])) if match else (-1, "")


def _event(thread: int, call: str, values: list[str], result: int, there: str, folder: Path) -> Event | None:
    def name(index: int) -> str:
        return str(folder / _text(values[index]))

    if call == "openat":
        flags = values[2]
        if not any(flag in flags for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_DIRECTORY", "O_RDONLY")):
            return None
        return Event("open", thread, there or name(1), handle=result, size=int("O_CREAT" in flags), fresh="O_TRUNC" in flags)
    if call in ("rename", "link"):
        return Event(call, thread, name(0), name(1))
    if call in ("renameat", "renameat2", "linkat"):
        return Event("link" if call == "linkat" else "rename", thread, name(1), name(3))
    if call in ("unlink", "mkdir"):
        return Event(call, thread, name(0))
    if call in ("unlinkat", "mkdirat"):
        return Event(call[:-2], thread, name(1))
    if call == "sync":
        return Event("sync all", thread)
    handle, path = _handle(values[0])
    if call in ("write", "pwrite64"):
        offset = int(values[3]) if call == "pwrite64" else -1
        return Event("write", thread, path, handle=handle, offset=offset, data=_bytes(values[1])[:result])
    if call == "lseek":
        return Event("seek", thread, path, handle=handle, offset=result)
    if call == "ftruncate":
        return Event("truncate", thread, path, handle=handle, size=int(values[1]))
    if call == "fallocate":  # of a new file, so it grows
        return Event("truncate", thread, path, handle=handle, size=int(values[2]) + int(values[3]))
    if call in ("fsync", "fdatasync"):
        return Event("sync", thread, path, handle=handle)
    return _copied(thread, call, values, result, folder)


def _copied(thread: int, call: str, values: list[str], result: int, folder: Path) -> Event | None:
    if call in ("sendfile", "copy_file_range"):
        into, source, at = (0, 1, 2) if call == "sendfile" else (2, 0, 1)
        handle, path = _handle(values[into])
        begin = int(values[at].partition("]")[0].lstrip("[")) if values[at] != "NULL" else -1
        return Event("copy", thread, path, _handle(values[source])[1], handle, begin, result) if result else None
    if any(str(folder) in _text(value.partition("<")[2].rstrip(">")) or str(folder) in _text(value) for value in values):
        raise AssertionError(f"the program calls {call}, which the model of the disk does not know")
    return None
