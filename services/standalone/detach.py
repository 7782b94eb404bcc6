"""`up --detach`: the supervisor as a process of its own, whose progress this one shows until it is ready.

Owns the pipe between both: JSON lines `{"say"|"ready"|"error": …}`. Must not know what is supervised.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from services.standalone.app import SUPERVISOR, Say, UpRequest, run, tail
from services.standalone.layout import Layout
from services.standalone.state import StandaloneError, make_directories


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="say"):
    text: str


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    pass


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    message: str
    detail: str


Report = Said | Ready | Failed


def up_detached(request: UpRequest, say: Say) -> None:
    """Returns when the system is ready and runs on without us. Raises StandaloneError with the reason; nothing runs then."""
    layout = Layout(Path(request.state).absolute())
    make_directories(layout, ())
    log_file = layout.log_file(SUPERVISOR)
    reading, writing = os.pipe()
    with os.fdopen(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
        process = subprocess.Popen(
            (
                sys.executable,
                "-P",
                "-m",
                "services.standalone",
                str(writing),
                msgspec.json.encode(request).decode(),
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
        )
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as reports:
            for line in reports:
                report: Report = msgspec.json.decode(line, type=Report)
                match report:
                    case Said(text=text):
                        say(text)
                    case Ready():
                        return
                    case Failed(message=message, detail=detail):
                        process.wait()
                        raise StandaloneError(message, detail)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    process.wait()
    raise StandaloneError("the supervisor ended without a word", f"the end of {log_file}:\n{tail(log_file)}")


def supervise_detached(request: UpRequest, descriptor: int) -> int:
    """The detached side: reports over `descriptor` until ready, then closes it. Returns the exit code."""
    pipe = os.fdopen(descriptor, "wb", buffering=0)

    def report(value: Report) -> None:
        if pipe.closed:
            return
        try:
            pipe.write(msgspec.json.encode(value) + b"\n")
        except BrokenPipeError:
            # Whoever waited was killed; the system it asked for goes on.
            pipe.close()

    def say(text: str) -> None:
        print(text, flush=True)
        report(Said(text=text))

    def ready() -> None:
        print("ready", flush=True)
        report(Ready())
        pipe.close()

    try:
        run(request, say, ready)
    except StandaloneError as error:
        print(error.message, error.detail, sep="\n", flush=True)
        report(Failed(message=error.message, detail=error.detail))
        return 1
    return 0
