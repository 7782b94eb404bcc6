"""A real nats-server with the permissions of a node's leaf, a responder in the agent's place, an installed shim."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from cni import freeze, install

SUBJECT = "orb.cni.n1"
PASSWORD = 'pa"ss\\wörd\n'
CONFIGURATION = """
listen: "127.0.0.1:{port}"
max_payload: 1048576
accounts {{ ORB {{ users: [
  {{ user: agent, password: pw, permissions: {{ subscribe: ["orb.cni.n1"], publish: ["none"],
     allow_responses: {{ max: 1, expires: "5m" }} }} }}
  {{ user: shim, password: {password}, permissions: {{ publish: ["{subject}"], subscribe: ["_INBOX_shim.>"] }} }}
] }} }}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class Server:
    """One nats-server process; `stop` and `start` as often as a test likes, on the same port."""

    def __init__(
        self, directory: Path, port: int, *, subject: str = SUBJECT, enter: tuple[str, ...] = ()
    ) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._enter = enter
        self._config = directory / f"nats-{port}.conf"
        text = CONFIGURATION.format(
            port=port, password=json.dumps(PASSWORD, ensure_ascii=False), subject=subject
        )
        self._config.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        command = [*self._enter, str(binary), "-c", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not self._enter:
            wait_for(self.listens)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass
class Agent:
    """Answers each request in a thread of its own; `reply` None means: stay silent."""

    server: Server
    reply: Callable[[int], tuple[bytes, int] | None] = lambda _: (b'{"ok":true}\n', 0)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def start(self) -> Agent:
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        client = await nats.connect(f"nats://{self.server.address}", user="agent", password="pw")

        async def answer(message: Msg) -> None:
            self.requests.append((dict(message.headers or {}), message.data))
            made = self.reply(len(self.requests))
            if made is not None:
                await client.publish(message.reply, made[0], headers={"Orb-Exit": str(made[1])})

        await client.subscribe(SUBJECT, cb=answer)
        await client.flush()
        self._ready.set()
        await self._end.wait()
        await client.close()


@dataclass
class Run:
    """One execution of the shim, its time included."""

    exit_code: int
    stdout: bytes
    took_s: float

    @property
    def error(self) -> dict[str, object]:
        assert self.exit_code == 1
        found = json.loads(self.stdout)
        assert set(found) == {"cniVersion", "code", "msg", "details"}
        return found


class Installed:
    """A plugin directory with the shim in it."""

    def __init__(self, directory: Path, server: str, **config: object) -> None:
        self.directory = directory
        settings: dict[str, object] = {
            "user": "shim",
            "password": PASSWORD,
            "node": "n1",
            "subject": SUBJECT,
            "netns": "",
        }
        self.files = install.install(directory, server=server, **{**settings, **config})  # pyright: ignore[reportArgumentType]

    def __call__(
        self,
        verb: str | None,
        body: bytes = b"{}",
        *,
        name: str = "orbweaver",
        before: tuple[str, ...] = (),
        **env: str,
    ) -> Run:
        environment = {**env, **({"CNI_COMMAND": verb} if verb is not None else {})}
        began = time.monotonic()
        done = subprocess.run(
            [*before, str(self.directory / name)],
            input=body,
            env=environment,
            capture_output=True,
            timeout=70,
            check=False,
        )
        assert done.stderr == b""
        return Run(done.returncode, done.stdout, time.monotonic() - began)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture
def agent(server: Server) -> Iterator[Agent]:
    made = Agent(server).start()
    yield made
    made.stop()


@pytest.fixture(params=["static", "python"])
def shim(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Installed]:
    """Makes an installation in either form of the shim: every test of behaviour holds for both."""
    if request.param == "python":
        monkeypatch.setattr(install, "shim_path", lambda: freeze.build_launcher(tmp_path / "launcher"))
    elif shutil.which("gcc") is None:
        pytest.skip("no compiler: the launcher alone is tested")

    def make(server: str, **config: object) -> Installed:
        return Installed(tmp_path / f"bin{len(list(tmp_path.iterdir()))}", server, **config)

    return make
