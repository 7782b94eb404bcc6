"""The folder of manifests as files: which changed, which are gone, which cannot be read.

Owns the walk, the signatures by which a change is seen, and the patience with editors: a file is read only when it
has stopped changing, and is gone only when it stays away. Must not know YAML or what an object is.

A pass that finds nothing new costs one stat a file. Names that begin with a dot are skipped, as files and as
directories; symbolic links are followed, so that a mounted ConfigMap (`a.yaml -> ..data/a.yaml`) is read once. Only regular
files are read: a FIFO would keep the controller waiting for ever, and /dev/zero has no end.
"""

from __future__ import annotations

import math
import os
import stat
import time
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.controller.merge import is_below

SUFFIXES = (".yaml", ".yml", ".json")
SETTLE_S = 0.02
"""A file must be this long unchanged before it is read, or away before it is gone: an editor truncates then writes, or renames
the old file away before it puts the new one in its place. Also longer than the tick of a file's mtime (4 ms at HZ=250)."""
PATIENCE_S = 0.5
"""How long one look waits for files to settle."""
FILE_MAX_BYTES = 16 * 1024 * 1024
TOO_LARGE = f"it is larger than {FILE_MAX_BYTES // 1024 // 1024} MiB"


class Signature(NamedTuple):
    mtime_ns: int
    size_bytes: int
    inode: int
    device: int


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the folder found new. Paths are relative to the folder, with `/`.

    `changed` has the bytes of each new or altered file; `unreadable` is everything that cannot be read now, with the reason (of
    a directory too: what is below it is neither changed nor gone)."""

    changed: dict[str, bytes]
    gone: frozenset[str]
    unreadable: dict[str, str]


class Folder:
    """Remembers the signature of every file it has read. Not for use from two threads at once."""

    def __init__(self, root: Path, settle_s: float = SETTLE_S) -> None:
        self._root = root
        self._settle_s = settle_s
        self._read: dict[str, Signature] = {}

    @property
    def files(self) -> int:
        return len(self._read)

    def look(self) -> Pass:
        """Reads what changed since the last look. Blocks while fresh files settle, half a second at most; a file that is still
        being written then is unreadable for this pass."""
        changed: dict[str, bytes] = {}
        unreadable: dict[str, str] = {}
        fresh: set[str] = set()
        away: frozenset[str] = frozenset()
        gone: frozenset[str] = frozenset()
        for _ in range(max(2, round(PATIENCE_S / self._settle_s))):
            found, unreadable = _walk(self._root)
            away_before = away
            away = frozenset(
                path for path in self._read.keys() - found.keys() if not is_below(path, unreadable)
            )
            gone = away & away_before
            fresh = set()
            for path, signature in sorted(found.items()):
                if self._read.get(path) == signature:
                    continue
                content = self._read_whole(path, signature) if _age_s(signature) >= self._settle_s else None
                if content is None:
                    fresh.add(path)
                elif isinstance(content, bytes):
                    changed[path] = content
                    self._read[path] = signature
                else:
                    unreadable[path] = content
            if not fresh and gone == away:
                break
            time.sleep(self._settle_s)
        else:
            unreadable |= dict.fromkeys(fresh, "it is still being written")
        for path in gone:
            del self._read[path]
            changed.pop(path, None)
        return Pass(changed=changed, gone=gone, unreadable=unreadable)

    def _read_whole(self, path: str, signature: Signature) -> bytes | str | None:
        """The bytes as of `signature`, None if the file changed meanwhile, or why it cannot be read."""
        if signature.size_bytes > FILE_MAX_BYTES:
            return TOO_LARGE
        try:
            # whatever took the file's place since the walk, opening and reading it must not block
            fd = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            with FileIO(fd) as file:
                if _signature(os.fstat(fd)) != signature:
                    return None
                content = _read_bounded(file)
                if _signature(os.fstat(fd)) != signature:
                    return None
        except FileNotFoundError:
            return None
        except OSError as error:
            return error.strerror or str(error)
        return content if content is not None else TOO_LARGE


def _read_bounded(file: FileIO) -> bytes | None:
    """All of it; None if it is longer than a file may be, whatever size it claims: files of /proc claim none."""
    content = bytearray()
    while chunk := file.read(FILE_MAX_BYTES + 1 - len(content)):
        content += chunk
        if len(content) > FILE_MAX_BYTES:
            return None
    return bytes(content)


def _walk(root: Path) -> tuple[dict[str, Signature], dict[str, str]]:
    """Every manifest file below `root` with its signature, and what could not be looked at."""
    found: dict[str, Signature] = {}
    unreadable: dict[str, str] = {}
    seen_directories: set[tuple[int, int]] = set()
    pending = [("", os.fspath(root))]
    while pending:
        prefix, directory = pending.pop()
        try:
            status = os.stat(directory)  # noqa: PTH116 - one call a file counts here
            if (status.st_dev, status.st_ino) in seen_directories:
                continue  # a link back up the tree
            seen_directories.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = prefix + entry.name
                    try:
                        if entry.is_dir():
                            pending.append((name + "/", entry.path))
                        elif name.endswith(SUFFIXES):
                            status = entry.stat()
                            if stat.S_ISREG(status.st_mode):
                                found[name] = _signature(status)
                            else:
                                unreadable[name] = "it is not a regular file"
                    except FileNotFoundError:
                        continue  # a link to nothing, or removed since it was listed
                    except OSError as error:
                        unreadable[name] = error.strerror or str(error)
        except OSError as error:
            unreadable[prefix] = error.strerror or str(error)
    return found, unreadable


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)


def _age_s(signature: Signature) -> float:
    """How long ago the file was written; a time in the future counts as long ago, or the file would never settle."""
    age_s = time.time() - signature.mtime_ns / 1e9
    return age_s if age_s >= 0 else math.inf
