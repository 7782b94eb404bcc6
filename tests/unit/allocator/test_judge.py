"""The table of garbage collection, row by row (§3.12 of the reference's behaviour), and what a verdict means by what a node can tell.

Each row of the table is a test of its name; each switch is tested in both positions.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.allocator.collect import (
    DEL_PATIENCE_S,
    WATCHED_MAX_S,
    Heard,
    Verdict,
    events_of,
    judge,
    judge_interfaces,
)
from services.allocator.state import Holding
from shared.contracts.lease import (
    AddressesQuarantined,
    LeaseItem,
    LeasesAdopted,
    LeasesReleased,
)
from tests.support.pure_allocator import (
    SECOND_NS,
    START_NS,
    World,
    manifest,
    pod,
    pool,
    settings,
    stateful_set,
)

POOL = pool("v4", "10.1.0.0/24", "10.1.0.10-10.1.0.30", default=True)
IP = ("10.1.0.10",)


def stamp(offset_s: float) -> str:
    return datetime.fromtimestamp(START_NS / 1e9 + offset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def machine(name: str = "n1", *, ready: str = "True", taint: str = "") -> str:
    text = manifest("Node", name, {"taints": [{"key": taint, "effect": "NoExecute"}] if taint else []})
    return f'{text}status: {{"conditions": [{{"type": "Ready", "status": "{ready}"}}]}}\n'


def gc(**values: object) -> str:
    """The ConfigMap with this `gc` block; names of statelessPod go where they belong."""
    stateless = {k: values.pop(k) for k in tuple(values) if k.startswith(("zombie", "enableGc"))}
    return settings(gc={**values, "statelessPod": stateless})


class Table:
    """One lease of pod shop/web-0 with UID u1, attached on n1 and then detached unless told otherwise, and what became of the pod."""

    def __init__(self, *manifests: str, name: str = "web-0", owner: str = "", attached: bool = False) -> None:
        self.world = World(POOL, machine(), pod(f"shop/{name}", uid="u1", owner=owner), *manifests)
        self.name = name
        self.world.add(f"shop/{name}", uid="u1", container="c1")
        self.owner = owner
        self.attached = attached
        # a DEL while the pod lives only marks the attachment; what the row says of the pod comes after it
        if not attached:
            self.world.release("c1")

    def becomes(self, **more: object) -> None:
        """The object of the pod, without the release that a real leader decides beside: the table alone is asked."""
        text = pod(f"shop/{self.name}", **{"uid": "u1", "owner": self.owner, **more})  # type: ignore[arg-type]
        self._facts_only(text)

    def also(self, *texts: str) -> None:
        for text in texts:
            self._facts_only(text)

    def _facts_only(self, text: str) -> None:
        state, self.world.state = self.world.state, World().state
        self.world.apply(text)
        self.world.state = state

    def gone(self) -> None:
        state, self.world.state = self.world.state, World().state
        self.world.delete_pod(f"shop/{self.name}")
        self.world.state = state

    @property
    def holding(self) -> Holding:
        return self.world.state.holdings["u1"]

    def judge(self, heard: Heard = "heard", *, at_s: float = 0.0, watched_s: float = 1e9) -> Verdict:
        now_ns = START_NS + int(at_s * SECOND_NS)
        return judge(self.world.state, self.world.facts, self.holding, now_ns, heard, watched_s=watched_s)

    def rule(self, *, at_s: float = 0.0) -> tuple[str, str]:
        verdict = self.judge(at_s=at_s)
        return verdict.action, verdict.rule


def static(*manifests: str, replicas: int = 1, attached: bool = False) -> Table:
    return Table(stateful_set("shop/web", replicas), *manifests, owner="StatefulSet/web", attached=attached)


# Missing


def test_missing_without_an_owner_that_wants_it() -> None:
    table = Table()
    table.gone()
    assert table.rule() == ("release", "missing")


def test_missing_and_a_valid_statefulset_pod() -> None:
    table = static()
    table.gone()
    assert table.rule() == ("keep", "missing, static")


@pytest.mark.parametrize("how", ["scaled down", "deleted", "terminating", "switched off"])
def test_missing_otherwise(how: str) -> None:
    table = static()
    table.gone()
    if how == "scaled down":
        table.also(stateful_set("shop/web", 0))
    elif how == "deleted":
        table.world.facts.stateful_sets.clear()
    elif how == "terminating":
        table.also(stateful_set("shop/web", terminating=True))
    else:
        table.also(settings(enableStatefulSet=False))
    assert table.rule() == ("release", "missing")


def test_missing_for_as_long_as_the_additional_delay() -> None:
    table = Table(gc(gcDeletingTimeOutPodDelay=20))
    table.gone()
    early = table.judge(watched_s=19.0)
    assert (early.action, early.due_ns) == ("keep", START_NS + SECOND_NS)
    assert table.judge(watched_s=20.0).action == "release"


# Another UID


def test_exists_with_another_uid_stateless() -> None:
    table = Table()
    table.becomes(uid="u2", ips=IP)
    assert table.rule() == ("release", "other UID")
    table.becomes(uid="u2")
    assert table.rule() == ("release", "other UID")


def test_exists_with_another_uid_static_and_has_addresses() -> None:
    table = static()
    table.becomes(uid="u2", ips=IP)
    assert table.rule() == ("release", "other UID, static, has addresses")


def test_exists_with_another_uid_static_and_is_not_valid() -> None:
    table = static()
    table.becomes(uid="u2", phase="Pending")
    table.also(stateful_set("shop/web", 0))
    assert table.rule() == ("release", "other UID, static, not wanted")


def test_exists_with_another_uid_static_no_addresses_yet_and_valid() -> None:
    table = static()
    table.becomes(uid="u2", phase="Pending")
    assert table.rule() == ("keep", "other UID, static")


def test_exists_with_another_uid_static_switched_off() -> None:
    table = static()
    table.becomes(uid="u2", phase="Pending")
    table.also(settings(enableStatefulSet=False))
    assert table.rule() == ("release", "other UID")


# Finished


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_finished_static(phase: str) -> None:
    table = static()
    table.becomes(phase=phase, finished_at=stamp(-3600))
    assert table.rule() == ("keep", "static")
    table.also(stateful_set("shop/web", 0))
    assert table.rule() == ("release", "finished, static, not wanted")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_finished_stateless_is_due_after_its_grace(phase: str) -> None:
    table = Table()
    table.becomes(phase=phase, finished_at=stamp(0), grace_s=45)
    early = table.judge(at_s=44)
    assert (early.action, early.rule, early.due_ns) == (
        "keep",
        "finished, within grace",
        START_NS + 45 * SECOND_NS,
    )
    assert table.rule(at_s=45) == ("release", "finished")


def test_finished_and_its_grace_is_not_told() -> None:
    """As an API server fills it in: 30 s."""
    table = Table()
    text = pod("shop/web-0", uid="u1", phase="Failed", finished_at=stamp(0), grace_s=45)
    table.also(text.replace('"terminationGracePeriodSeconds": 45, ', ""))
    assert table.rule(at_s=29) == ("keep", "finished, within grace")
    assert table.rule(at_s=30) == ("release", "finished")


def test_finished_stateless_with_the_additional_delay() -> None:
    table = Table(gc(gcDeletingTimeOutPodDelay=15))
    table.becomes(phase="Failed", finished_at=stamp(0), grace_s=30)
    assert table.rule(at_s=44) == ("keep", "finished, within grace")
    assert table.rule(at_s=45) == ("release", "finished")


def test_finished_stateless_with_a_deletion_timestamp_is_terminating() -> None:
    table = Table()
    table.becomes(phase="Succeeded", terminating=True, deleted_at=stamp(0), grace_s=30, ips=IP)
    assert table.rule(at_s=29) == ("keep", "terminating, within grace")
    assert table.rule(at_s=30) == ("release", "terminating")


@pytest.mark.parametrize("other", ["kind", "group"])
def test_static_are_only_pods_of_a_statefulset_of_kubernetes(other: str) -> None:
    table = Table(stateful_set("shop/web"), owner="ReplicaSet/web" if other == "kind" else "StatefulSet/web")
    text = pod("shop/web-0", uid="u1", owner=table.owner, phase="Failed", finished_at=stamp(-3600))
    table.also(text.replace("apps/v1", "apps.kruise.io/v1beta1") if other == "group" else text)
    assert table.rule() == ("release", "finished")


# Pending


def test_pending() -> None:
    table = Table()
    table.becomes(phase="Pending")
    assert table.rule() == ("keep", "pending")


def test_a_pod_without_status_is_not_judged_by_it() -> None:
    table = Table()
    table.becomes(phase="")
    assert table.rule() == ("keep", "pending")


def test_pending_static_and_not_valid() -> None:
    table = static()
    table.also(stateful_set("shop/web", 0))
    for phase in ("Pending", ""):
        table.becomes(phase=phase)
        assert table.rule() == ("keep", "static, not wanted")


# Terminating


def test_terminating_and_pending_is_kept_within_its_grace_and_no_longer() -> None:
    """The row of pending pods stands above that of terminating ones; the tracer of terminating pods asks for no phase."""
    table = Table()
    table.becomes(phase="Pending", terminating=True, deleted_at=stamp(0), grace_s=30)
    assert table.rule(at_s=29) == ("keep", "terminating, within grace")
    assert table.rule(at_s=30) == ("release", "terminating")


def test_terminating_within_grace_without_addresses() -> None:
    table = Table()
    table.becomes(terminating=True, deleted_at=stamp(0))
    assert table.rule(at_s=1) == ("release", "terminating, no addresses")


def test_terminating_within_grace_with_addresses() -> None:
    table = Table()
    table.becomes(terminating=True, deleted_at=stamp(0), grace_s=30, ips=IP)
    verdict = table.judge(at_s=1)
    assert (verdict.action, verdict.rule, verdict.due_ns) == (
        "keep",
        "terminating, within grace",
        START_NS + 30 * SECOND_NS,
    )


@pytest.mark.parametrize(
    ("ready", "switch"),
    [("True", "zombieOnReadyNode"), ("False", "zombieOnNotReadyNode"), ("Unknown", "zombieOnNotReadyNode")],
)
@pytest.mark.parametrize("ending", ["terminating", "finished"])
def test_past_its_grace_by_the_readiness_of_the_node(ready: str, switch: str, ending: str) -> None:
    for on in (True, False):
        table = Table(gc(**{switch: on}))
        table.also(machine(ready=ready))
        if ending == "terminating":
            table.becomes(terminating=True, deleted_at=stamp(-60), ips=IP)
        else:
            table.becomes(phase="Failed", finished_at=stamp(-60))
        expected = ("release", ending) if on else ("keep", f"{ending}, switched off")
        assert table.rule() == expected


@pytest.mark.parametrize(
    ("ready", "other"), [("True", "zombieOnNotReadyNode"), ("False", "zombieOnReadyNode")]
)
def test_the_switch_of_the_other_readiness_is_not_asked(ready: str, other: str) -> None:
    table = Table(gc(**{other: False}))
    table.also(machine(ready=ready))
    table.becomes(terminating=True, deleted_at=stamp(-60), ips=IP)
    assert table.rule() == ("release", "terminating")


@pytest.mark.parametrize("known", ["no object", "an object without conditions"])
def test_past_its_grace_on_a_node_that_nobody_knows(known: str) -> None:
    table = Table(attached=True)
    table.world.facts.nodes.clear()
    if known == "an object without conditions":
        table.also(manifest("Node", "n1", {}))
    table.becomes(terminating=True, deleted_at=stamp(-60), ips=IP)
    assert table.rule() == ("keep", "terminating, node unknown")
    table.gone()
    for heard in ("heard", "silent", "unsure"):
        assert table.judge(heard).action == "keep"


def test_a_deleted_node_is_not_ready_to_the_switches() -> None:
    table = Table(gc(zombieOnNotReadyNode=False))
    table.becomes(terminating=True, deleted_at=stamp(-60), ips=IP)
    table.world.delete("Node", "n1")
    table.also(machine("n2"))
    assert table.rule() == ("keep", "terminating, switched off")
    table.also(gc())
    assert table.rule() == ("release", "terminating")


def test_terminating_static_is_never_collected_while_it_is_wanted() -> None:
    table = static()
    table.becomes(terminating=True, deleted_at=stamp(-3600))
    assert table.rule() == ("keep", "static")
    table.also(stateful_set("shop/web", 0))
    assert table.rule() == ("release", "terminating")


def test_a_clock_that_is_an_hour_ahead_ends_no_grace() -> None:
    table = Table()
    table.becomes(terminating=True, deleted_at=stamp(0), grace_s=30, ips=IP)
    early = table.judge(at_s=3600, watched_s=5)
    assert (early.action, early.due_ns) == ("keep", START_NS + 3625 * SECOND_NS)
    assert table.judge(at_s=3600, watched_s=30).action == "release"
    table.becomes(terminating=True, deleted_at=stamp(0), grace_s=86_400, ips=IP)
    assert table.judge(at_s=200_000, watched_s=WATCHED_MAX_S).action == "release"


# Alive


def test_other_with_addresses() -> None:
    for table in (Table(), static()):
        table.becomes(phase="Running", ips=IP)
        assert table.judge().action == "keep"


def test_other_with_addresses_static_and_not_valid() -> None:
    table = static()
    table.also(stateful_set("shop/web", 0))
    table.becomes(phase="Running", ips=IP)
    assert table.rule() == ("keep", "static, not wanted")


@pytest.mark.parametrize("phase", ["Running", "Unknown"])
def test_other_with_addresses_stateless_whatever_the_switch(phase: str) -> None:
    table = Table(gc(enableGcRunningPodOnEmptyPodStatusIPs=True))
    table.becomes(phase=phase, ips=IP)
    assert table.rule() == ("keep", "has addresses")


def test_other_without_addresses_static() -> None:
    table = static()
    table.becomes(phase="Running")
    assert table.rule() == ("keep", "static")
    table.also(stateful_set("shop/web", 0))
    assert table.rule() == ("release", "no addresses, static, not wanted")


def test_running_without_addresses_stateless() -> None:
    table = Table()
    table.becomes(phase="Running")
    assert table.rule() == ("keep", "running, no addresses")
    table.also(gc(enableGcRunningPodOnEmptyPodStatusIPs=True))
    assert table.rule() == ("release", "running, no addresses")


def test_unknown_phase_without_addresses_stateless() -> None:
    table = Table()
    table.becomes(phase="Unknown")
    assert table.rule() == ("release", "unknown phase, no addresses")


def test_a_pod_of_the_hosts_network_is_ignored() -> None:
    table = Table()
    table.becomes(phase="Failed", finished_at=stamp(-3600), host_network=True)
    assert table.rule() == ("keep", "host network")


# The switch of all


@pytest.mark.parametrize("case", ["missing", "finished", "node gone"])
def test_switched_off_nothing_is_collected(case: str) -> None:
    table = Table(gc(enabled=False), attached=True)
    if case == "missing":
        table.gone()
    elif case == "finished":
        table.becomes(phase="Failed", finished_at=stamp(-3600))
    else:
        table.gone()
        table.world.delete("Node", "n1")
    for heard in ("heard", "silent", "unsure"):
        assert table.judge(heard).rule == "off"
    assert tuple(judge_interfaces(table.world.facts, table.holding, table.judge())) == (
        (("eth0",), table.judge()),
    )


# What a node can tell


def test_on_a_node_that_is_heard_of_the_agent_detaches_first() -> None:
    table = Table(attached=True)
    table.gone()
    early = table.judge(watched_s=DEL_PATIENCE_S - 10)
    assert (early.action, early.due_ns) == ("keep", START_NS + 10 * SECOND_NS)
    assert table.judge().action == "detach"
    assert events_of(table.holding, ("eth0",), table.judge(), START_NS) == ()


def test_a_not_ready_node_is_not_a_dead_node() -> None:
    table = Table(attached=True)
    table.also(machine(ready="False"))
    table.gone()
    assert table.judge("heard").action == "detach"
    assert table.judge("unsure").action == "keep"
    verdict = table.judge("silent")
    assert verdict.action == "quarantine"
    kept, released = events_of(table.holding, ("eth0",), verdict, START_NS)
    assert isinstance(kept, AddressesQuarantined) and isinstance(released, LeasesReleased)
    table.world.commit((kept, released))
    assert not table.world.held()
    assert table.world.add("", container="c9")[0].address == "10.1.0.11/24"


def test_an_agent_that_is_away_from_a_ready_node_is_waited_for() -> None:
    table = Table(attached=True)
    table.gone()
    verdict = table.judge("silent")
    assert verdict.action == "keep" and verdict.due_ns
    assert "its agent is not heard of" in verdict.reason


@pytest.mark.parametrize("heard", ["heard", "silent", "unsure"])
def test_a_deleted_node_and_the_out_of_service_taint_are_words_of_a_person(heard: Heard) -> None:
    table = Table(attached=True)
    table.gone()
    table.also(machine(ready="Unknown", taint="node.kubernetes.io/out-of-service"))
    assert table.judge(heard).action == "release"
    table = Table(attached=True)
    table.gone()
    table.world.delete("Node", "n1")
    assert table.judge(heard).action == "release"
    table.also(machine())
    assert table.judge("silent").action == "keep"


def test_without_a_cluster_nobody_but_the_node_ends_an_attachment() -> None:
    table = Table(attached=True)
    table.world.facts.nodes.clear()
    table.gone()
    for heard in ("heard", "silent", "unsure"):
        assert table.judge(heard).action == "keep"


def test_a_node_without_an_object_is_gone_where_others_have_one() -> None:
    table = Table(attached=True)
    table.gone()
    table.world.facts.nodes.pop("n1")
    table.also(machine("n2"))
    assert table.judge("silent").action == "release"


def test_a_container_without_a_pod_ends_with_its_node_only() -> None:
    world = World(POOL, machine())
    world.add("", container="c1")
    (holding,) = world.state.holdings.values()
    for heard in ("heard", "silent", "unsure"):
        kept = judge(world.state, world.facts, holding, START_NS, heard)
        assert (kept.action, kept.rule) == ("keep", "container")
    world.delete("Node", "n1")
    assert judge(world.state, world.facts, holding, START_NS, "silent").action == "release"


def test_what_another_plugin_attached_goes_with_its_pod_and_rests() -> None:
    world = World(POOL, machine())
    item = LeaseItem(ifname="eth0", address="10.1.0.10", pool="v4", prefix_len=24)
    world.commit(
        (
            LeasesAdopted(
                owner="u1", generation=1, items=(item,), pod_namespace="shop", pod_name="x", node="n1"
            ),
        )
    )
    holding = world.state.holdings["u1"]
    verdict = judge(world.state, world.facts, holding, START_NS, "heard")
    assert (verdict.action, verdict.rule) == ("release", "missing")
    (released,) = events_of(holding, ("eth0",), verdict, START_NS)
    assert isinstance(released, LeasesReleased) and released.rest_until_ns > START_NS
    world.apply(machine(ready="False"))
    for heard in ("silent", "heard"):
        assert judge(world.state, world.facts, holding, START_NS, heard).action == "quarantine"


def test_what_another_plugin_attached_on_a_node_that_is_not_told_goes_with_its_pod() -> None:
    world = World(POOL, machine())
    item = LeaseItem(ifname="eth0", address="10.1.0.10", pool="v4", prefix_len=24)
    adopted = LeasesAdopted(owner="u1", generation=1, items=(item,), pod_namespace="shop", pod_name="x")
    world.commit((adopted,))
    verdict = judge(world.state, world.facts, world.state.holdings["u1"], START_NS, "silent")
    assert (verdict.action, verdict.rule) == ("release", "missing")


def test_what_we_attached_ourselves_does_not_rest_for_others() -> None:
    table = Table()
    table.gone()
    (released,) = events_of(table.holding, ("eth0",), table.judge(), START_NS)
    assert isinstance(released, LeasesReleased) and released.rest_until_ns == 0


def test_of_several_that_went_by_a_name_the_last_one_waits() -> None:
    table = static()
    item = LeaseItem(ifname="eth0", address="10.1.0.29", pool="v4", prefix_len=24)
    older = LeasesAdopted(
        owner="u0", generation=0, items=(item,), pod_namespace="shop", pod_name="web-0", node="n1"
    )
    table.world.commit((older,))
    table.gone()
    assert table.rule() == ("keep", "missing, static")
    ((names, verdict),) = judge_interfaces(table.world.facts, table.holding, table.judge())
    assert (names, verdict.action) == (("eth0",), "keep")
    before = table.world.state.holdings["u0"]
    verdict = judge(table.world.state, table.world.facts, before, START_NS, "heard")
    assert (verdict.action, verdict.rule) == ("release", "missing")


def test_an_interface_that_a_pod_inherited_and_came_up_without() -> None:
    marks = {"ipam.spidernet.io/ippools": [{"interface": name, "ipv4": ["v4"]} for name in ("eth0", "net1")]}
    world = World(
        POOL, machine(), stateful_set("shop/web"), pod("shop/web-0", uid="u1", owner="StatefulSet/web", annotations=marks)
    )  # fmt: skip
    world.add("shop/web-0", uid="u1", container="c1")
    world.add("shop/web-0", "net1", uid="u1", container="c1")
    world.delete_pod("shop/web-0")
    world.apply(pod("shop/web-0", uid="u2", owner="StatefulSet/web"))
    world.add("shop/web-0", uid="u2", container="c2")
    holding = world.state.holdings["u2"]

    def verdicts() -> dict[tuple[str, ...], str]:
        verdict = judge(world.state, world.facts, holding, START_NS, "heard")
        return {names: one.action for names, one in judge_interfaces(world.facts, holding, verdict)}

    assert verdicts() == {("eth0", "net1"): "keep"}
    world.apply(pod("shop/web-0", uid="u2", owner="StatefulSet/web", ips=IP))
    assert verdicts() == {("net1",): "release", ("eth0",): "keep"}


# Conformance


def test_g00003_deletion_on_a_node_whose_plugin_is_gone() -> None:
    """No DEL comes: the objects go, and the agent is asked."""
    table = Table(attached=True, owner="Deployment")
    table.gone()
    assert table.judge().action == "detach"


def test_g00005_g00007_a_record_with_a_wrong_name_or_uid() -> None:
    world = World(POOL, machine(), pod("shop/web", uid="u1", ips=IP))
    for owner, name in (("u1", "wrong"), ("0a1b2c3d4e5f", "web")):
        item = LeaseItem(ifname="eth0", address=f"10.1.0.{10 + len(name)}", pool="v4", prefix_len=24)
        world.commit(
            (
                LeasesAdopted(
                    owner=owner, generation=1, items=(item,), pod_namespace="shop", pod_name=name, node="n1"
                ),
            )
        )
        verdict = judge(world.state, world.facts, world.state.holdings[owner], START_NS, "heard")
        assert verdict.action == "release"
        world.commit(events_of(world.state.holdings[owner], ("eth0",), verdict, START_NS))
    assert not world.held()


def test_g00009_pods_of_a_node_that_is_not_ready() -> None:
    table = Table(attached=True)
    table.also(machine(ready="Unknown"))
    table.becomes(terminating=True, deleted_at=stamp(-60), ips=IP)
    assert table.judge("silent").action == "quarantine"
    table.also(gc(zombieOnNotReadyNode=False))
    assert table.judge("silent").action == "keep"
