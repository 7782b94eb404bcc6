"""A service of the hub follows the hub's servers to where they are."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from shared.exit import START_AGAIN
from tests.integration.webhook.conftest import Webhook

_ENDS_S = 20.0


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
