"""The shim as a runtime sees it: one process, one answer. Every test runs the executable and the python3 launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from cni import freeze, install
from tests.shim.conftest import Agent, Installed, Server, free_port, wait_for

Make = Callable[..., Installed]
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_reply_is_printed_and_its_code_is_the_exit_code(shim: Make, server: Server, agent: Agent) -> None:
    installed = shim(server.address)
    agent.reply = lambda _: (b'{"cniVersion":"1.0.0"}', 0)
    assert (installed("ADD").exit_code, installed("ADD").stdout) == (0, b'{"cniVersion":"1.0.0"}')
    agent.reply = lambda _: (b'{"code":101}', 1)
    assert (installed("ADD").exit_code, installed("ADD").stdout) == (1, b'{"code":101}')
    agent.reply = lambda _: (b"", 0)
    assert (installed("DEL").exit_code, installed("DEL").stdout) == (0, b"")


def test_headers_carry_the_call(shim: Make, server: Server, agent: Agent) -> None:
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    odd = " a%b\n\té\x7f "
    body = b'{"cniVersion":"1.0.0"}\r\n\x00\xff'
    environment = {
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/é",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": odd,
    }
    shim(server.address)(
        "ADD", body, name="coordinator", TRACEPARENT=TRACEPARENT, BAGGAGE="a=b%20c", **environment
    )
    ((headers, received),) = agent.requests
    assert received == body
    assert headers["Orb-Version"] == "1"
    assert headers["Orb-Name"] == "coordinator"
    assert len(bytes.fromhex(headers["Orb-Attempt"])) == 16
    assert before_ns < int(headers["Orb-Start-Ns"]) < time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert int(headers["Orb-Deadline-Ns"]) - int(headers["Orb-Start-Ns"]) == 60_000_000_000
    assert (headers["traceparent"], headers["baggage"]) == (TRACEPARENT, "a=b%20c")
    for name, value in {"CNI_COMMAND": "ADD", **environment}.items():
        sent = headers["-".join(part.capitalize() for part in name.split("_"))]
        assert sent.isascii()
        assert sent.isprintable()
        assert unquote(sent) == value
    assert "Cni-Path" not in headers
    assert "tracestate" not in headers


def test_a_large_body_passes_whole(shim: Make, server: Server, agent: Agent) -> None:
    body = os.urandom(512 * 1024)
    assert shim(server.address)("ADD", body).exit_code == 0
    assert agent.requests[0][1] == body


def test_an_agent_that_starts_late_is_found(shim: Make, server: Server) -> None:
    late, installed = Agent(server), shim(server.address)
    timer = threading.Timer(0.5, late.start)
    timer.start()
    run = installed("ADD")
    timer.join()
    late.stop()
    assert run.exit_code == 0
    assert 0.4 < run.took_s < 5


def test_a_server_that_starts_late_is_found(shim: Make, server: Server) -> None:
    server.stop()
    late = Agent(server)

    def begin() -> None:
        server.start()
        late.start()

    timer = threading.Timer(0.3, begin)
    timer.start()
    run = shim(server.address)("ADD")
    timer.join()
    late.stop()
    assert run.exit_code == 0


def test_silence_is_answered_with_the_same_attempt_again(shim: Make, server: Server, agent: Agent) -> None:
    agent.reply = lambda nth: (b"second", 0) if nth == 2 else None
    run = shim(server.address)("ADD")
    assert (run.exit_code, run.stdout) == (0, b"second")
    assert 1.9 < run.took_s < 6
    first, second = agent.requests
    assert first == second


def test_a_server_restarted_in_mid_call_is_asked_again(shim: Make, server: Server, agent: Agent) -> None:
    agent.reply = lambda nth: None if nth == 1 else (b"after", 0)
    installed = shim(server.address)

    def restart() -> None:
        wait_for(lambda: len(agent.requests) == 1)
        server.stop()
        server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    run = installed("ADD")
    thread.join()
    assert run.stdout == b"after"
    assert agent.requests[0] == agent.requests[1]


def test_a_wrong_password_is_116_at_once(shim: Make, server: Server, agent: Agent) -> None:
    run = shim(server.address, password="wrong")("ADD", b"x" * 500_000)
    assert run.error["code"] == 116
    assert "orbweaver cni install" in str(run.error["details"])
    assert run.took_s < 5


def test_a_subject_that_is_not_allowed_is_116(shim: Make, server: Server, agent: Agent) -> None:
    run = shim(server.address, subject="orb.cni.n2")("ADD")
    assert run.error["code"] == 116
    assert "Permissions Violation" in str(run.error["msg"])
    assert run.took_s < 5


def test_no_server_is_11_at_the_deadline(shim: Make) -> None:
    run = shim(f"127.0.0.1:{free_port()}", deadlines_s={"ADD": 0.4})("ADD", b'{"cniVersion": "0.4.0"}')
    assert (run.error["code"], run.error["cniVersion"]) == (11, "0.4.0")
    assert "the NATS leaf at 127.0.0.1:" in str(run.error["msg"])
    assert "0.4 s" in str(run.error["msg"])
    assert 0.4 <= run.took_s < 3


def test_no_agent_is_11_and_says_so(shim: Make, server: Server) -> None:
    run = shim(server.address, deadlines_s={"DEL": 0.3})("DEL")
    assert run.error["code"] == 11
    assert "the node agent did not answer" in str(run.error["msg"])
    assert "orb.cni.n1" in str(run.error["details"])


@pytest.mark.parametrize("present", ["nothing", "server", "hung agent"])
def test_status_is_50_within_about_a_second(shim: Make, server: Server, present: str) -> None:
    agent = Agent(server, reply=lambda _: None).start() if present == "hung agent" else None
    if present == "nothing":
        server.stop()
    run = shim(server.address)("STATUS")
    if agent is not None:
        agent.stop()
    assert run.error["code"] == 50
    assert 0.9 < run.took_s < 3


def test_version_is_answered_without_configuration_or_server(shim: Make) -> None:
    installed = shim("127.0.0.1:1")
    (installed.directory / "orbweaver.json").unlink()
    versions = b'"supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n'
    for body, version in (
        (b"", b"1.1.0"),
        (b'{ "cniVersion" : "0.3.1" }', b"0.3.1"),
        (b'{"cniVersion":"9"}', b"1.1.0"),
    ):
        assert installed("VERSION", body).stdout == b'{"cniVersion":"' + version + b'",' + versions


@pytest.mark.parametrize("verb", [None, "", "add", 'X"\n\\'])
def test_an_unknown_verb_is_4_and_names_the_variable(shim: Make, verb: str | None) -> None:
    run = shim("127.0.0.1:1")(verb)
    assert run.error["code"] == 4
    assert "CNI_COMMAND" in str(run.error["msg"])


def test_ten_megabytes_on_stdin_are_6_at_once(shim: Make, server: Server, agent: Agent) -> None:
    run = shim(server.address)("ADD", b'{"cniVersion":"1.0.0",' + b" " * 10_000_000 + b"}")
    assert run.error["code"] == 6
    assert run.took_s < 5
    assert agent.requests == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, 5),
        ("", 6),
        ("{", 6),
        ("[]", 6),
        ("{}", 6),
        ('{"server":1}', 6),
        ("{" * 50_000, 6),
        ('{"a":"\\', 6),
        ("x", 6),
    ],
)
def test_a_configuration_that_is_none_says_what_to_run(shim: Make, text: str | None, code: int) -> None:
    installed = shim("127.0.0.1:1")
    config = installed.directory / "orbweaver.json"
    if text is None:
        config.unlink()
    else:
        config.write_text(text)
    run = installed("ADD")
    assert run.error["code"] == code
    assert "orbweaver.json" in str(run.error["msg"])
    assert "orbweaver cni install" in str(run.error["details"])


@pytest.mark.parametrize("verb", ["STATUS", "ADD", "VERSION"])
def test_a_stdin_without_end_is_5_at_the_deadline(
    shim: Make, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = freeze._source  # pyright: ignore[reportPrivateUsage]
    short = source("cni.shim").replace(b'b"ADD": 60.0', b'b"ADD": 0.5').replace(b"10.0", b"0.5")
    monkeypatch.setattr(freeze, "_source", lambda module: short if module == "cni.shim" else source(module))
    monkeypatch.setattr(freeze, "BUILD", tmp_path / "build")
    read_end, write_end = os.pipe()
    began = time.monotonic()
    os.write(write_end, b'{"cniVersion":')
    done = subprocess.run(
        [str(shim("127.0.0.1:1").directory / "orbweaver")],
        stdin=read_end,
        stdout=subprocess.PIPE,
        env={"CNI_COMMAND": verb},
        timeout=10,
        check=False,
    )
    took_s = time.monotonic() - began
    os.close(read_end)
    os.close(write_end)
    assert done.returncode == 1
    assert b'"code":5,' in done.stdout
    assert b"stdin has no end: 14 bytes" in done.stdout
    assert 0.3 < took_s < 5


def test_an_oversized_environment_is_4(shim: Make, server: Server, agent: Agent) -> None:
    assert shim(server.address)("ADD", CNI_ARGS="\n" * 60_000).error["code"] == 4


def test_a_symbolic_link_elsewhere_finds_the_configuration(shim: Make, server: Server, agent: Agent) -> None:
    installed = shim(server.address)
    elsewhere = installed.directory.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "spiderpool").symlink_to(installed.directory / "orbweaver")
    installed.directory = elsewhere
    assert installed("ADD", name="spiderpool").exit_code == 0
    assert agent.requests[0][0]["Orb-Name"] == "spiderpool"


def test_sigterm_ends_it_at_once(shim: Make, server: Server, agent: Agent) -> None:
    agent.reply = lambda _: None
    command = [str(shim(server.address).directory / "orbweaver")]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env={"CNI_COMMAND": "ADD"}
    )
    wait_for(lambda: len(agent.requests) == 1)
    process.terminate()
    assert process.communicate(timeout=1) == (b"", None)
    assert process.returncode == -signal.SIGTERM


def test_a_closed_stdout_is_no_traceback(shim: Make, server: Server, agent: Agent) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [str(shim(server.address).directory / "orbweaver")],
        input=b"{}",
        stdout=write_end,
        stderr=subprocess.PIPE,
        env={"CNI_COMMAND": "ADD"},
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")


def test_both_forms_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = f"127.0.0.1:{free_port()}"
    static = Installed(tmp_path / "bin", server, netns="/dev/null")
    said = [static("ADD", b"\xff"), static("VERSION"), static("nö\udcff"), static("GC", b" " * 600_000)]
    monkeypatch.setattr(install, "shim_path", lambda: freeze.build_launcher(tmp_path / "launcher"))
    python = Installed(tmp_path / "bin", server, netns="/dev/null")
    again = [python("ADD", b"\xff"), python("VERSION"), python("nö\udcff"), python("GC", b" " * 600_000)]
    assert [(run.exit_code, run.stdout) for run in said] == [(run.exit_code, run.stdout) for run in again]


def test_standard_streams_that_are_closed(shim: Make, server: Server, agent: Agent) -> None:
    command = f"exec {shim(server.address).directory / 'orbweaver'} <&- 2>&-"
    done = subprocess.run(
        ["sh", "-c", command], stdout=subprocess.PIPE, env={"CNI_COMMAND": "ADD"}, check=False
    )
    assert done.returncode == 1
    assert b'"code":5,' in done.stdout
