"""One service as a real process with its settings file: started, waited for, stopped by its pid.

Must not know what the service does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from shared.exit import START_AGAIN

STOP_S = 10.0


class Service:
    """`python -m <module> --config FILE`; its log is in `directory`."""

    def __init__(self, module: str, settings: msgspec.Struct, directory: Path) -> None:
        self._module = module
        self._config = directory / f"{module}.json"
        self._config.write_bytes(msgspec.json.encode(settings))
        self._config.chmod(0o600)
        self.log = directory / f"{module}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "--config", str(self._config)], stderr=log, stdout=log
            )

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=STOP_S)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """The exit code of a process that ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout=timeout_s)

    def start_again(self) -> None:
        """As whoever keeps services does: one that ended by itself because a new start may help is started."""
        if self._process is not None and self._process.poll() == START_AGAIN:
            self.start()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=STOP_S)

    def logged(self, text: str, timeout_s: float = 10.0) -> str:
        """Waits until the log holds `text`; the whole log. Raises AssertionError with the log when it does not come."""
        deadline = time.monotonic() + timeout_s
        while text not in (log := self.log.read_text()):
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{log}"
            time.sleep(0.02)
        return log
