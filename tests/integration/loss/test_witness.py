"""Real agents that are sick, or right against the log: what the allocator makes of it, and what the doctor and the bus tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import msgspec

from services.agent.entry import Entry
from services.agent.record import Opened, Put, frame, replay
from services.cli import question
from services.cli.system import System, ask
from services.standalone.state import read_credentials, read_system
from services.standalone.system import LOOPBACK
from shared import subjects
from shared.bus import Bus
from shared.contracts.codec import encode
from shared.contracts.disagreement import DISAGREEMENT_EVENT, DisagreementEvent, DisagreementSettled
from shared.contracts.ipam import Release
from shared.settings import BusSettings
from tests.integration.loss.conftest import Pod, Stage

PATIENCE_S = 90.0
"""Reports come every 10 s; two of them and two exchanges on a busy machine."""


@contextlib.contextmanager
def sick(stage: Stage, node: str, *further: Entry) -> Iterator[None]:
    """The agent's journal has these entries too, and again only its own afterwards."""
    path = stage.layout.node_state(node) / "journal"
    with stage.at_rest(f"agent-{node}"):
        before = path.read_bytes()
        seen = replay(before).seen
        own = replay(before).entries.values()
        records = [Opened(seen=seen), *(Put(entry=one, seen=seen) for one in (*own, *further))]
        path.write_bytes(b"".join(map(frame, records)))
    try:
        yield
    finally:
        with stage.at_rest(f"agent-{node}"):
            records = [Opened(seen=seen), *(Put(entry=one, seen=seen) for one in own)]
            path.write_bytes(b"".join(map(frame, records)))


def entry_of(stage: Stage, pod: Pod) -> Entry:
    path = stage.layout.node_state(pod.node) / "journal"
    return next(
        one for one in replay(path.read_bytes()).entries.values() if one.container_id == pod.container_id
    )


def told(stage: Stage) -> list[DisagreementEvent]:
    async def read(system: System) -> list[DisagreementEvent]:
        return [
            DISAGREEMENT_EVENT.decode(message.data)
            async for message in system.bus.read(subjects.DISAGREEMENTS.name)
        ]

    return ask(stage.system.state, read)


def open_now(stage: Stage) -> set[str]:
    """What was published and is not settled."""
    found: dict[str, str] = {}
    for event in told(stage):
        if isinstance(event, DisagreementSettled):
            found.pop(event.id, None)
        else:
            found[event.id] = event.sentence
    return set(found.values())


def claims(stage: Stage) -> list[str]:
    """What the doctor warns of, and with each what settles it."""
    found = [one for one in stage.findings("claims") if one["result"] != "ok"]
    assert all(one["wayOut"] if "wayOut" in one else one["way_out"] for one in found)
    return [one["sentence"] for one in found]


def well(stage: Stage) -> bool:
    return not claims(stage) and not open_now(stage)


def test_a_sick_agent_that_claims_everything(stage: Stage) -> None:
    one, other = stage.pod("n1"), stage.pod("n2")
    stage.attach(one, other)
    template = entry_of(stage, other)
    everything = [
        msgspec.structs.replace(
            template,
            container_id=f"{number:064x}",
            addresses=(f"172.29.{1 + number // 256}.{number % 256}/16",),
            generation=1 << 40,
        )
        for number in range(1000)
    ]
    with sick(stage, "n2", *everything):
        stage.until(lambda: _quarantined(stage) > 0, "its claims are kept from others", PATIENCE_S)
        assert len(claims(stage)) > 5
        view = ask(stage.system.state, question.allocator)
        assert 0 < view.quarantined <= 256
        assert open_now(stage)
        assert one.address not in view.kept or stage.leases()[one.address]["containerID"] == one.container_id
        fresh = [stage.pod(node) for node in ("n1", "n2")]
        stage.attach(*fresh)
        stage.check()
        for pod in fresh:
            stage.detach(pod)
    stage.until(lambda: well(stage), "all is well again", PATIENCE_S)
    stage.check()


def _quarantined(stage: Stage) -> int:
    return ask(stage.system.state, question.allocator).quarantined


def test_two_live_claimants(stage: Stage) -> None:
    rightful, other = stage.pod("n1"), stage.pod("n2")
    stage.attach(rightful, other)
    claim = msgspec.structs.replace(
        entry_of(stage, other),
        container_id="f" * 64,
        addresses=(f"{rightful.address}/16",),
        generation=entry_of(stage, rightful).generation + 5,
    )
    with sick(stage, "n2", claim):
        stage.until(
            lambda: any(f"{rightful.address} belongs to" in sentence for sentence in claims(stage)),
            "the doctor tells who keeps it",
            PATIENCE_S,
        )
        stage.until(lambda: _quarantined(stage) > 0, "it is kept from others", PATIENCE_S)
        stage.check()
        duplicates = [one for one in stage.findings("duplicates") if one["result"] == "fail"]
        assert rightful.address in duplicates[0]["sentence"]
        # it is given up, and still given to nobody, for the other uses it
        given_up = rightful.address
        stage.detach(rightful)
        stage.until(lambda: given_up not in stage.leases(), "the release is taken")
        fresh = stage.pod("n1")
        stage.attach(fresh)
        assert fresh.address != given_up
    stage.until(lambda: well(stage), "all is well again", PATIENCE_S)


def test_a_lease_that_ended_in_error_is_made_anew(stage: Stage) -> None:
    pod = stage.pod("n1")
    stage.attach(pod)
    before = stage.leases()[pod.address]
    entry = entry_of(stage, pod)
    asyncio.run(_release(stage, pod.node, entry))
    stage.until(lambda: pod.address not in stage.leases(), "the lease has ended")
    stage.until(lambda: pod.address in stage.leases(), "the lease is made anew", PATIENCE_S)
    assert stage.leases()[pod.address] == before
    stage.until(lambda: well(stage), "all is well again", PATIENCE_S)
    assert any("whose lease the log has ended" in one.sentence for one in told(stage))
    stage.check()
    freed = pod.address
    stage.detach(pod)
    stage.until(lambda: freed not in stage.leases(), "its DEL ends it")


async def _release(stage: Stage, node: str, entry: Entry) -> None:
    """As its agent would, if it had heard a DEL."""
    system, credentials = read_system(stage.system.state), read_credentials(stage.system.state)
    assert system is not None and credentials is not None
    settings = BusSettings(
        servers=(f"nats://{LOOPBACK}:{system.ports.nodes[node].leaf}",),
        user="agent",
        password=credentials.nodes[node].agent,
        inbox_prefix=subjects.node_inbox(node, "agent"),
    )
    bus = await Bus.connect(settings, "test")
    try:
        release = Release(
            node=node,
            container_id=entry.container_id,
            ifname=entry.ifname,
            attempt=entry.attempt,
            generation=entry.generation,
        )
        await bus.append(subjects.release(node), encode(release))
    finally:
        await bus.close()
