"""The state directory on disk: read, write, lock. Owns its files' modes and that each is replaced as a whole.

Must not know what the settings say or which processes run.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import TypeVar

import msgspec

from services.standalone.layout import Layout
from services.standalone.system import Credentials, SystemFile

S = TypeVar("S", bound=msgspec.Struct)

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class StandaloneError(Exception):
    """A sentence for the user; `detail` are lines that show more, such as the end of a log."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


def make_directories(layout: Layout, nodes: tuple[str, ...]) -> None:
    """Raises StandaloneError when one cannot be made, or is not ours: what is in it will be believed and run as root."""
    _demand_no_strangers(layout)
    for directory in layout.directories(nodes):
        try:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            _demand_own(directory, directory.stat() if directory == layout.state else directory.lstat())
            directory.chmod(DIRECTORY_MODE)
        except OSError as error:
            raise StandaloneError(
                f"the state directory {directory} cannot be made: {error.strerror}"
            ) from None


def _demand_no_strangers(layout: Layout) -> None:
    """A directory that serves something else keeps its mode and its files."""
    ours = {path.relative_to(layout.state).parts[0] for path in layout.directories(())[1:]}
    state = layout.state
    if state.is_dir() and not layout.lock_file.exists():
        strangers = sorted(path.name for path in state.iterdir() if path.name not in ours)
        if strangers:
            raise StandaloneError(
                f"{state} is not empty and holds no system, but {strangers[0]!r}: name a directory of its own"
            )


def _demand_own(directory: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StandaloneError(f"the state directory {directory} is a symbolic link: remove it")
    if found.st_uid != os.geteuid():
        raise StandaloneError(
            f"the state directory {directory} belongs to user {found.st_uid}, who could change what is run as root"
        )


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file that only root reads, in one step: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, FILE_MODE)
        file.write(content)
    temporary.rename(path)


def write_struct(path: Path, value: msgspec.Struct) -> None:
    replace_file(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def read_system(state: Path) -> SystemFile | None:
    """What was last written about the system below `state`; None when there never was one. Raises StandaloneError."""
    return _read(Layout(state.absolute()).system_file, SystemFile)


def read_credentials(state: Path) -> Credentials | None:
    """The system's passwords; None when there never was one. Raises StandaloneError."""
    return _read(Layout(state.absolute()).credentials_file, Credentials)


def _read(path: Path, kind: type[S]) -> S | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StandaloneError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise StandaloneError(f"{path} is damaged: {error}; remove it and start again") from None


class StateLock:
    """Held by the one supervisor of a state directory until its process ends; the kernel lets go of it even after a `kill -9`."""

    def __init__(self, path: Path) -> None:
        """Raises StandaloneError that names the holder."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise StandaloneError(
                f"the system in {path.parent} is already run by process {holder}; `orbweaver down` stops it"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
