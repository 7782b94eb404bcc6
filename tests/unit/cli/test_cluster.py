"""What makes a cluster's system ready, by what was heard of it."""

from __future__ import annotations

import msgspec
import pytest

from services.cli.cluster import Heard, Instance, Stream, lacks, reasons, servers
from shared.contracts.ipam import Mark
from shared.contracts.query import AllocatorView

LEADER = AllocatorView(replica="a-1", term=3, mark=Mark(), leases=4, facts_sequence=9, facts_synced=True)
WHOLE = Heard(
    nodes=("n1",),
    instances=(
        Instance(service="allocator", instance="a-1"),
        Instance(service="controller", instance="c-1", facts={"leader": "false"}),
        Instance(service="controller", instance="c-2", facts={"leader": "true"}),
        Instance(service="webhook", instance="w-1"),
        Instance(service="agent", instance="agent-n1", node="n1"),
        Instance(service="rdma", instance="rdma-n1", node="n1"),
    ),
    leader=LEADER,
    streams=(),
)


def stream(**cluster: object) -> Stream:
    told = {"name": "LEASES", "state": {"messages": 7, "bytes": 70}, "cluster": cluster or None}
    return msgspec.convert(told, Stream)


def heard(**changes: object) -> Heard:
    return msgspec.structs.replace(WHOLE, **changes)


def without(service: str) -> Heard:
    return heard(instances=tuple(one for one in WHOLE.instances if one.service != service))


def test_a_whole_system_has_nothing_to_say() -> None:
    assert reasons(WHOLE) == []


@pytest.mark.parametrize("service", ["allocator", "controller", "webhook"])
def test_one_of_each_service_must_be_heard(service: str) -> None:
    assert reasons(without(service)) == [f"no {service} is heard"]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (heard(leader="nobody answers orb.ipam.query"), "no allocator leads (nobody answers orb.ipam.query)"),
        (
            heard(leader=msgspec.structs.replace(LEADER, facts_synced=False)),
            "a-1 has not read the objects yet",
        ),
        (
            heard(instances=tuple(one for one in WHOLE.instances if one.instance != "c-2")),
            "no controller leads",
        ),
        (heard(nodes=()), "no node is known: the controller has told of none"),
        (heard(streams=(Stream(name="FACTS", trouble="no answer"),)), "stream FACTS: no answer"),
        (heard(streams=(stream(leader="", replicas=[]),)), "stream LEASES has no leader"),
        (
            heard(streams=(stream(leader="h-0", replicas=[{"name": "h-1", "current": False, "lag": 12}]),)),
            "stream LEASES on h-1 is 12 messages behind",
        ),
        (
            heard(streams=(stream(leader="h-0", replicas=[{"name": "h-2", "offline": True}]),)),
            "stream LEASES on h-2 is offline",
        ),
    ],
)
def test_what_is_no_single_instances(found: Heard, sentence: str) -> None:
    assert lacks(found) == [sentence]
    assert sentence in reasons(found)


def test_an_instance_that_is_not_ready_is_named() -> None:
    silent = Instance(service="agent", instance="agent-n1", node="n1", reason="does not answer: no responder")
    found = heard(instances=(*WHOLE.instances[:4], silent, WHOLE.instances[5]))
    assert lacks(found) == []
    assert reasons(found) == ["agent-n1 does not answer: no responder"]


def test_servers_of_the_hub_are_those_of_the_streams() -> None:
    of_three = stream(
        leader="h-1", replicas=[{"name": "h-0", "current": True}, {"name": "h-2", "current": True}]
    )
    assert servers(heard(streams=(of_three,))) == ["h-0", "h-1", "h-2"]
    assert reasons(heard(streams=(of_three,))) == []
    assert servers(heard(streams=(stream(),))) == []
