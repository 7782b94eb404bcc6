"""A whole system as it runs: what is where, who may read it, and what it says of itself."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import urllib.request
from pathlib import Path

import msgspec
import pytest

from services.standalone.assembly import ShimSettings, shim_settings
from services.standalone.state import read_credentials
from services.standalone.system import Credentials
from shared.subjects import STREAMS
from tests.integration.standalone.conftest import Commands

INSTANCES = {
    "nats-hub",
    "nats-leaf-n1",
    "controller-0",
    "allocator-0",
    "allocator-1",
    "webhook-0",
    "rdma-n1",
    "agent-n1",
}


def credentials_of(commands: Commands) -> Credentials:
    found = read_credentials(commands.state)
    assert found is not None
    return found


def passwords_of(value: object) -> list[str]:
    """Every string below a value made of built-in types."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in passwords_of(item)]
    return [str(value)]


def test_status_tells_of_every_part(running: Commands) -> None:
    status = running.status()
    assert status["ready"] is True and status["reasons"] == []
    assert {service["instance"] for service in status["services"]} == INSTANCES
    assert all(
        service["ready"] and service["pid"] and service["uptime_s"] > 0 for service in status["services"]
    )
    assert status["state"] == str(running.state) and status["manifests"] == str(running.manifests)
    assert set(status["nats"]["leaves"]) == {"n1"}
    hub = next(service for service in status["services"] if service["instance"] == "nats-hub")
    assert hub["facts"] == {"leaves": "1", "streams": str(len(STREAMS))}


def test_status_is_a_table_for_people(running: Commands) -> None:
    done = running.run("status")
    assert done.returncode == 0
    assert done.stdout.startswith("ready") and all(instance in done.stdout for instance in INSTANCES)


def test_every_metrics_address_answers(running: Commands) -> None:
    metrics = running.status()["metrics"]
    assert set(metrics) == INSTANCES - {"nats-hub", "nats-leaf-n1"}
    for instance, url in metrics.items():
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.status == 200 and answer.read(), instance


def test_the_webhook_answers_over_https_by_its_ca(running: Commands) -> None:
    webhook = running.status()["webhook"]
    context = ssl.create_default_context(cafile=webhook["ca"])
    with urllib.request.urlopen(
        f"{webhook['url']}/webhook-health-check", timeout=5, context=context
    ) as answer:
        assert answer.status == 200


def test_only_root_can_read_what_is_below_the_state_directory(running: Commands) -> None:
    assert stat.S_IMODE(running.state.stat().st_mode) == 0o700
    open_ones = []
    for directory, names, files in os.walk(running.state):
        for name in (*names, *files):
            path = Path(directory) / name
            # The mounted namespace has the kernel's mode; a certificate is for everybody who got so far.
            if path == running.state / "netns" or path.suffix == ".crt":
                continue
            if stat.S_IMODE(path.stat().st_mode) & 0o077 and not path.is_relative_to(running.state / "nats"):
                open_ones.append(str(path))
    assert open_ones == []


def test_no_password_is_in_the_system_file_a_log_or_a_command_line(running: Commands) -> None:
    passwords = passwords_of(msgspec.to_builtins(credentials_of(running)))
    assert len(passwords) == len(set(passwords)) and all(len(password) >= 32 for password in passwords)
    texts = {str(path): path.read_text(errors="replace") for path in (running.state / "log").iterdir()}
    texts["system.json"] = (running.state / "system.json").read_text()
    for mark in running.marks():
        texts[f"cmdline of {mark.pid}"] = Path(f"/proc/{mark.pid}/cmdline").read_text()
        texts[f"environ of {mark.pid}"] = Path(f"/proc/{mark.pid}/environ").read_text()
    assert [name for name, text in texts.items() if any(password in text for password in passwords)] == []


def test_it_listens_on_loopback_alone(running: Commands) -> None:
    pids = {mark.pid for mark in running.marks()}
    done = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True)
    ours = [
        line.split()[3] for line in done.stdout.splitlines() if any(f"pid={pid}," in line for pid in pids)
    ]
    assert len(ours) >= 9
    assert [address for address in ours if not address.startswith("127.0.0.1:")] == []


def test_a_second_up_says_who_runs_it(running: Commands) -> None:
    done = running.up()
    assert done.returncode == 1
    supervisor = running.system.supervisor
    assert supervisor is not None and f"process {supervisor.pid}" in done.stderr + done.stdout
    assert running.status()["ready"]


def test_the_shims_settings_name_its_leaf(running: Commands) -> None:
    system = running.system
    settings = shim_settings("n1", system.ports, credentials_of(running), system.shim_netns)
    assert isinstance(settings, ShimSettings)
    host, _, port = settings.server.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as leaf:
        assert (
            json.loads(leaf.recv(65536).split(b"\r\n")[0].removeprefix(b"INFO "))["server_name"] == "leaf-n1"
        )
    assert (settings.node, settings.subject, settings.user) == ("n1", "orb.cni.n1", "shim")


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (("--node", "a=nowhere-at-all"), "there is no network namespace /run/netns/nowhere-at-all", 1),
        (("--node", "a=/etc/hostname"), "/etc/hostname is not a network namespace", 1),
        (("--node", "a="), "name a network namespace", 2),
        (("--node", "a", "--node", "a"), "given twice", 2),
        (("--node", "a", "--node", "b"), "the same network namespace", 1),
        (("--node", "a b"), "a node's name", 2),
    ],
)
def test_a_wrong_node_is_one_sentence(
    commands: Commands, words: tuple[str, ...], sentence: str, code: int
) -> None:
    done = commands.up(*words)
    assert done.returncode == code and sentence in done.stderr and "Traceback" not in done.stderr
    assert commands.run("down").returncode == 0


def test_a_missing_folder_of_manifests_is_one_sentence(commands: Commands) -> None:
    commands.manifests.rename(commands.manifests.with_name("elsewhere"))
    done = commands.up()
    assert done.returncode == 1 and f"no directory of manifests {commands.manifests}" in done.stderr


def test_without_a_system_status_says_so(commands: Commands) -> None:
    done = commands.run("status")
    assert done.returncode == 1 and "there is no system in" in done.stderr
