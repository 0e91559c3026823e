"""A model of a disk: what is written, and what of it is sure to be there after a power cut.

A file's bytes are sure once it was synced, a name once its folder was. What is not sure may be there or not: writes in any choice and
torn at sectors, and the names of a folder up to any of its changes (file systems keep these in order). That is as much as POSIX
promises, and less than any journalling file system gives.
"""

from __future__ import annotations

import random

from attrs import define, field

from crash.trace import Event

SECTOR = 512


@define(eq=False)
class Inode:
    """A file by its content."""

    now: bytearray = field(factory=bytearray)
    sure: bytearray = field(factory=bytearray)
    pending: list[tuple[int, bytes]] = field(factory=list)
    """Writes that are not synced: offset and bytes; an offset of -1 - N cuts the file to N bytes."""

    def write(self, offset: int, data: bytes) -> None:
        self.pending.append((offset, data))
        _put(self.now, offset, data)

    def sync(self) -> None:
        self.sure, self.pending = bytearray(self.now), []

    def after_cut(self, luck: random.Random) -> bytes:
        """What may be left: of the writes that were not synced all, none, or some, and some of these in part."""
        left, mood = bytearray(self.sure), luck.choice(("none", "some", "all"))
        for offset, data in self.pending:
            if mood == "all" or (mood == "some" and luck.random() < 0.6):
                torn = mood == "some" and luck.random() < 0.3
                _put(left, offset, data[: luck.randrange(0, len(data) + 1, SECTOR)] if torn else data)
        return bytes(left)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if offset < 0:
        size = -1 - offset
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


FOLDER = Inode()
"""Stands for any folder among names."""
Change = tuple[tuple[str, Inode | None], ...]
"""Names that come, or go when there is None, at once."""


@define(eq=False)
class Disk:
    """All that lies below a folder."""

    root: str
    names: dict[str, Inode] = field(factory=dict)
    sure: dict[str, Inode] = field(factory=dict)
    pending: dict[str, list[Change]] = field(factory=dict)
    """Changes of names that are not synced, by folder."""
    handles: dict[int, Inode] = field(factory=dict)
    places: dict[int, int] = field(factory=dict)
    """Where the next plain write to a handle goes."""

    def do(self, event: Event) -> None:
        """Let it happen."""
        if event.kind == "open":
            self._open(event)
        elif event.kind in ("write", "copy", "truncate", "seek"):
            self._write(event)
        elif event.kind == "sync":
            self._sync(event)
        elif event.kind == "sync all":
            for inode in self.names.values():
                inode.sync()
            for folder in list(self.pending):
                self._sync_names(folder)
        elif event.kind == "mkdir":
            self._change(event.path, ((event.path, FOLDER),))
        elif event.kind == "unlink":
            if event.path in self.names:
                self._change(event.path, ((event.path, None),))
        elif event.path in self.names:  # rename, link
            come: Change = ((event.other, self.names[event.path]),)
            go: Change = ((event.path, None),) if event.kind == "rename" else ()
            self._change(event.other, go + come)

    def _open(self, event: Event) -> None:
        if event.size and event.path not in self.names:
            self._change(event.path, ((event.path, Inode()),))
        inode = self.names.get(event.path)
        if inode and event.fresh and inode.now:
            inode.write(-1, b"")
        self.places[event.handle] = 0
        self.handles.pop(event.handle, None)
        if inode:
            self.handles[event.handle] = inode

    def _write(self, event: Event) -> None:
        inode = self.handles.get(event.handle)
        if inode is None:  # a file that was there before
            return
        if event.kind == "seek":
            self.places[event.handle] = event.offset
        elif event.kind == "truncate":
            inode.write(-1 - event.size, b"")
        elif event.kind == "copy":
            begin = max(0, event.offset)
            inode.write(self.places[event.handle], bytes(self.names[event.other].now[begin : begin + event.size]))
            self.places[event.handle] += event.size
        elif event.offset >= 0:
            inode.write(event.offset, event.data)
        else:
            inode.write(self.places[event.handle], event.data)
            self.places[event.handle] += len(event.data)

    def _sync(self, event: Event) -> None:
        inode = self.handles.get(event.handle)
        if inode and inode is not FOLDER:
            inode.sync()
        else:
            self._sync_names(event.path)

    def _sync_names(self, folder: str) -> None:
        for change in self.pending.pop(folder, []):
            _apply(self.sure, change)

    def _change(self, path: str, change: Change) -> None:
        _apply(self.names, change)
        self.pending.setdefault(path.rpartition("/")[0], []).append(change)

    # -- questions -----------------------------------------------------------------------------------------------------

    def unsure(self, below: str) -> list[str]:
        """What may be gone after a power cut, of a folder and what is in it: bytes of files, and names, its own among them."""
        files = [f"bytes of {path}" for path, inode in self.names.items() if path.startswith(below) and inode.pending]
        changes = [change for folder in self.pending.values() for change in folder]
        names = [name for change in changes for name, inode in change if inode and self.names.get(name) is inode]
        return files + [f"name of {name}" for name in names if name.startswith(below) or below.startswith(f"{name}/")]

    def after_cut(self, luck: random.Random) -> dict[str, bytes | None]:
        """Files with their bytes, and folders with None, as they may be found when the power is back."""
        left = dict(self.sure)
        for changes in self.pending.values():
            for change in changes[: luck.randrange(len(changes) + 1)]:
                _apply(left, change)
        there = {name: inode for name, inode in left.items() if self._reachable(name, left)}
        return {name: None if inode is FOLDER else inode.after_cut(luck) for name, inode in there.items()}

    def _reachable(self, name: str, left: dict[str, Inode]) -> bool:
        folder = name.rpartition("/")[0]
        return folder == self.root or (left.get(folder) is FOLDER and self._reachable(folder, left))


def _apply(names: dict[str, Inode], change: Change) -> None:
    for name, inode in change:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
