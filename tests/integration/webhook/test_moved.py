"""A service of the hub waits for what a cluster mounts, and follows the hub's servers to where they are."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import msgspec

from shared.exit import START_AGAIN, STOPPED
from tests.integration.webhook.conftest import Webhook

_ENDS_S = 20.0


def _probe(webhook: Webhook, path: str) -> tuple[int, str]:
    """What the kubelet gets; (0, "") while nobody listens."""
    host, _, port = webhook.settings.telemetry.http_address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def _await_probe(webhook: Webhook, path: str, status: int, said: str = "") -> None:
    deadline = time.monotonic() + _ENDS_S
    while (found := _probe(webhook, path))[0] != status or said not in found[1]:
        assert webhook.code() is None, webhook.log.read_text()
        assert time.monotonic() < deadline, f"{path}: {found}\n{webhook.log.read_text()}"
        time.sleep(0.05)


def test_a_service_waits_for_what_its_settings_name(webhook: Webhook, tmp_path: Path) -> None:
    """It lives, says what it waits for, and goes on in the same process."""
    folder, password = tmp_path / "bus", tmp_path / "secret" / "password"
    folder.mkdir()
    password.parent.mkdir()
    bus = webhook.settings.bus
    waiting = msgspec.structs.replace(
        bus, servers=(), servers_folder=str(folder), password="", password_file=str(password)
    )
    webhook.config.write_bytes(msgspec.json.encode(msgspec.structs.replace(webhook.settings, bus=waiting)))
    webhook.start()
    _await_probe(webhook, "/readyz", 503, str(password))
    assert _probe(webhook, "/healthz")[0] == 200
    password.write_text(bus.password)
    _await_probe(webhook, "/readyz", 503, "no server of the hub")
    (folder / "hub.orbweaver-nats-0").write_text(bus.servers[0])
    webhook.wait(ready=False)
    assert webhook.log.read_text().count("waits for a file") == 1


def test_a_service_that_waits_ends_when_it_is_asked_to(webhook: Webhook, tmp_path: Path) -> None:
    waiting = msgspec.structs.replace(webhook.settings.bus, password_file=str(tmp_path / "none"))
    webhook.config.write_bytes(msgspec.json.encode(msgspec.structs.replace(webhook.settings, bus=waiting)))
    webhook.start()
    _await_probe(webhook, "/healthz", 200)
    assert webhook.stop() == STOPPED


def test_a_service_starts_again_when_the_hub_is_elsewhere(webhook: Webhook, tmp_path: Path) -> None:
    folder = tmp_path / "bus"
    folder.mkdir()
    (url,) = webhook.settings.bus.servers
    (folder / "hub.orbweaver-nats-0").write_text("nats://127.0.0.1:1\n")
    bus = msgspec.structs.replace(webhook.settings.bus, servers=(), servers_folder=str(folder))
    webhook.config.write_bytes(msgspec.json.encode(msgspec.structs.replace(webhook.settings, bus=bus)))
    webhook.start()
    time.sleep(2.5)
    assert webhook.code() is None, "a hub that is away is waited for"

    (folder / "hub.orbweaver-nats-0").write_text(f"{url}\n")
    deadline = time.monotonic() + _ENDS_S
    while webhook.code() is None:
        assert time.monotonic() < deadline, webhook.log.read_text()
        time.sleep(0.1)
    assert webhook.code() == START_AGAIN
    assert "elsewhere" in webhook.log.read_text()

    webhook.start()
    webhook.wait(ready=False)
