"""Any networks annotation, in either form, against a model of a few lines; and the same pod by one attach an interface."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st

from services.agent.desired import shares
from services.agent.entry import Entry
from services.agent.entry import answered as with_answer
from services.agent.release import releases_of
from services.agent.witness import report_of
from services.allocator.decide import Accepted, Rejected, decide_release, grants_of
from services.allocator.watch import digest_of_node
from shared.contracts.ipam import Allocate, Allocated, Grant, InterfaceRequest, Mark, NetworkInterface
from tests.support.pure_allocator import World, network, pod, pool

NETWORKS = "k8s.v1.cni.cncf.io/networks"
FREE = 3
"""Addresses of each pool."""
NAMES = ("a", "b", "c")
NAMESPACES = ("shop", "infra")


class Element(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    interface: str


ELEMENTS = st.lists(
    st.builds(
        Element,
        st.sampled_from(("", *NAMESPACES)),
        st.sampled_from((*NAMES * 8, "absent")),
        st.sampled_from((*[""] * 40, "fast", "fast0", "data0", "data1", "net2", "eth0")),
    ),
    max_size=9,
)


def cluster() -> list[str]:
    """Each network has a pool of each family; those of `infra` have other names than their objects."""
    out = [
        pool("default4", "10.0.0.0/24", "10.0.0.10-10.0.0.20", default=True),
        pool("default6", "fd00::/64", "fd00::10-fd00::20", default=True),
    ]
    for number, (namespace, name) in enumerate(((ns, n) for ns in NAMESPACES for n in NAMES), 1):
        v4, v6 = f"{namespace}-{name}-v4", f"{namespace}-{name}-v6"
        out += [
            pool(v4, f"10.{number}.0.0/24", f"10.{number}.0.10-10.{number}.0.{9 + FREE}"),
            pool(v6, f"fd00:{number}::/64", f"fd00:{number}::10-fd00:{number}::{0xF + FREE:x}"),
            network(f"{namespace}/own-{name}", [v4], [v6], renamed=name)
            if namespace == "infra"
            else network(f"{namespace}/{name}", [v4], [v6]),
        ]
    return out


def written(elements: list[Element], as_json: bool) -> str:
    if as_json:
        return json.dumps([{k: v for k, v in msgspec.structs.asdict(one).items() if v} for one in elements])
    return ", ".join(
        f"{one.namespace}/" * bool(one.namespace) + one.name + f"@{one.interface}" * bool(one.interface)
        for one in elements
    )


def model(elements: list[Element]) -> list[tuple[str, str]] | str:
    """Interface and network of each, or the name of an error."""
    given_names = [one.interface for one in elements if one.interface]
    if len(set(given_names)) < len(given_names):
        return "annotation_invalid"
    out = [
        (one.interface or f"net{position}", f"{one.namespace or 'shop'}/{one.name}")
        for position, one in enumerate(elements, 1)
    ]
    ifnames = ["eth0", *(ifname for ifname, _ in out)]
    if len(set(ifnames)) < len(ifnames):
        return "annotation_invalid"
    if any(one.name == "absent" for one in elements):
        return "network_unknown"
    if any(count > FREE for count in Counter(name for _, name in out).values()):
        return "pool_exhausted"
    return out


@settings(max_examples=150, deadline=None)
@given(elements=ELEMENTS, as_json=st.booleans(), answered=st.booleans())
def test_the_allocators_resolution(elements: list[Element], as_json: bool, answered: bool) -> None:
    as_json = as_json and bool(elements)
    expected = model(elements)
    event(expected if isinstance(expected, str) else f"{len(expected)} networks")
    here = World(*cluster(), pod("shop/web", annotations={NETWORKS: written(elements, as_json)}))
    before = here.canonical()
    command = here.command("shop/web", further=True)
    decision = here.decide(command)
    if isinstance(expected, str):
        assert isinstance(decision, Rejected), decision
        assert decision.refusal.error == expected, decision.refusal
        assert here.canonical() == before, "a refusal takes nothing"
        if expected != "annotation_invalid":
            assert any(name in decision.refusal.message for name in _at_fault(elements, expected))
        return
    assert isinstance(decision, Accepted), decision
    assert [(one.ifname, one.network) for one in decision.requests] == [("eth0", ""), *expected]
    grants = grants_of(here.state, here.facts, decision.owner)
    pools = {(grant.ifname, grant.family): grant.pool for grant in grants}
    assert pools == {("eth0", 4): "default4", ("eth0", 6): "default6"} | {
        (ifname, family): f"{name.replace('/', '-')}-v{family}"
        for ifname, name in expected
        for family in (4, 6)
    }
    assert len({grant.address for grant in grants}) == len(grants)

    one_by_one = World(*cluster(), pod("shop/web"))
    for ifname, name in [("eth0", ""), *expected]:
        one_by_one.add("shop/web", InterfaceRequest(ifname=ifname, network=name))
    assert here.held() == one_by_one.held(), "as by one attach an interface"

    entry = journalled(command, decision, grants, answered)
    if answered:
        report = report_of("n1", here.state.mark, [entry], lambda _: False)
        assert report.digest == digest_of_node(here.state, "n1", frozenset()), "log and node tell the same"
    here.delete_pod("shop/web")
    for release in releases_of(msgspec.structs.replace(entry, state="releasing"), "n1"):
        here.commit(decide_release(here.state, here.facts, release, here.now_ns).events)
    assert here.state.lease_count() == 0
    assert here.replayed().lease_count() == 0


def journalled(command: Allocate, decision: Accepted, grants: tuple[Grant, ...], answered: bool) -> Entry:
    """What the agent's journal has of it, the answer lost or not."""
    entry = Entry(
        container_id=command.container_id,
        ifname="eth0",
        state="intent",
        mode="native",
        attempt=command.attempt,
        boot_id="b",
        netns="/run/netns/p",
        device=4,
        inode=9,
        network="underlay",
        mac="02:00:00:00:00:01",
        unanswered=(command.attempt,),
        further_networks=True,
    )
    if not answered:
        return entry
    reply = Allocated(
        attempt=command.attempt,
        pod_uid=decision.owner,
        grants=grants,
        mark=Mark(),
        term=1,
        interfaces=tuple(NetworkInterface(ifname=r.ifname, network=r.network) for r in decision.requests),
    )
    of = shares(reply, "eth0", further_networks=True)
    return msgspec.structs.replace(with_answer(entry, command.attempt, of, decision.owner), state="completed")


def _at_fault(elements: list[Element], error: str) -> set[str]:
    names = [f"{one.namespace or 'shop'}/{one.name}" for one in elements]
    if error == "network_unknown":
        return {name for name in names if name.endswith("/absent")}
    return {name for name, count in Counter(names).items() if count > FREE}
