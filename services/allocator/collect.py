"""Garbage collection as one decision: `judge(holding, …) → Verdict`. Pure.

Owns the table of §3.12 of the reference's behaviour (whose pod is over, and when), and what that means for a lease by what its node
can tell: an attachment is released only after its node has detached it; where the node cannot be reached, the address is kept from
others until it can. Must not know the bus, nor who asks: the leading allocator, and a dry run, judge alike.

A NotReady node is not a dead node: what runs there may run on. Node objects that were deleted, and the out-of-service taint, are a
person's word that nothing does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import msgspec

from services.allocator.facts import Facts
from services.allocator.inherit import quarantined
from services.allocator.owner import is_static, is_wanted
from services.allocator.pod import SECOND_NS, KnownPod
from services.allocator.state import Holding, State
from shared import limits
from shared.contracts.collect import Action
from shared.contracts.lease import LeaseEvent, LeasesReleased
from shared.manifests.workload import Node

Heard = Literal["heard", "silent", "unsure"]
"""Whether the agent of a node told anything lately; `unsure` where nobody has listened for long enough."""
NodeState = Literal["ready", "not_ready", "unknown", "gone", "out_of_service"]
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
LOOK_AGAIN_NS = 30 * SECOND_NS
WATCHED_MAX_S = 300.0
"""A clock that is wrong must not end a grace period: what is due by the clock is watched for as long as its grace, up to this."""
DEL_PATIENCE_S = 120.0
"""A pod's object may go before its DEL comes, and that of a static pod may go and come again: its node is asked only after so long."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`rule` is the row that fits, `reason` a sentence. `due_ns`: when to look again if nothing changes, 0 = not by itself."""

    action: Action
    rule: str
    reason: str
    due_ns: int = 0


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the pod of a lease is over, by facts alone. `watch_s`: for how long that must have been seen before it counts."""

    over: bool
    rule: str
    reason: str
    due_ns: int = 0
    watch_s: float = 0.0


def node_state(facts: Facts, node: str) -> NodeState:
    """What the Node object says. `unknown`: nobody tells how a node of this name is, as where no cluster stands behind the objects."""
    found = facts.nodes.get(node)
    if found is None:
        is_cluster = any(_readiness(other) for other in facts.nodes.values())
        return "gone" if node in facts.departed or is_cluster else "unknown"
    if any(taint.key == OUT_OF_SERVICE for taint in found.spec.taints):
        return "out_of_service"
    ready = _readiness(found)
    return "unknown" if not ready else "ready" if ready == "True" else "not_ready"


def _readiness(node: Node) -> str:
    return next((one.status for one in node.status.conditions if one.type == "Ready"), "")


def judge(
    state: State,
    facts: Facts,
    holding: Holding,
    now_ns: int,
    heard: Heard,
    *,
    watched_s: float = math.inf,
    patience_s: float = DEL_PATIENCE_S,
) -> Verdict:
    """What becomes of all that one owner holds. `watched_s` is for how long the judge has seen this pod ending, `patience_s` how long
    its DEL is awaited before its node is asked."""
    if not facts.settings.gc.enabled:
        return Verdict(action="keep", rule="off", reason="garbage collection is switched off (gc.enabled)")
    node = node_state(facts, holding.node) if holding.node else "unknown"
    fate = (
        _fate_of_node(holding, node)
        if not holding.namespace
        else fate_of(state, facts, holding, node, now_ns)
    )
    if not fate.over:
        return Verdict(action="keep", rule=fate.rule, reason=fate.reason, due_ns=fate.due_ns)
    return _end(holding, fate, node, heard, now_ns, watched_s, patience_s)


def _end(
    holding: Holding,
    fate: Fate,
    node: NodeState,
    heard: Heard,
    now_ns: int,
    watched_s: float,
    patience_s: float,
) -> Verdict:
    """The pod is over. Who can say that nothing has the address any more?"""
    if watched_s < fate.watch_s:
        wait = f"{fate.reason}; that is watched for {fate.watch_s:.0f} s first"
        due_ns = now_ns + int((fate.watch_s - watched_s) * SECOND_NS)
        return Verdict(action="keep", rule=fate.rule, reason=wait, due_ns=due_ns)
    is_adopted = any(held.adopted for held in holding.interfaces.values())
    if node in ("gone", "out_of_service"):
        word = "deleted" if node == "gone" else "marked as out of service"
        return _verdict("release", fate, f"node {holding.node} is {word}")
    if holding.is_over and not is_adopted:
        return _verdict("release", fate, "nothing has it attached")
    if holding.is_over and (node == "ready" or not holding.node):
        return _verdict("release", fate, "another plugin attached it, and its node is at work")
    if node == "unknown":
        return _verdict(
            "keep", fate, f"its node must detach it first, and nothing is known of node {holding.node}"
        )
    if not holding.is_over and heard == "heard":
        if watched_s < patience_s:
            left_s = patience_s - watched_s
            return _verdict("keep", fate, "a DEL is awaited", now_ns + int(left_s * SECOND_NS))
        return _verdict("detach", fate, f"node {holding.node} is asked to detach it first")
    if heard == "unsure":
        return _verdict("keep", fate, f"node {holding.node} is given time to tell", now_ns + LOOK_AGAIN_NS)
    if node == "not_ready":
        return _verdict(
            "quarantine", fate, f"node {holding.node} cannot be reached: nobody is given it before it tells"
        )
    return _verdict(
        "keep",
        fate,
        f"node {holding.node} must detach it first, and its agent is not heard of",
        now_ns + LOOK_AGAIN_NS,
    )


def _verdict(action: Action, fate: Fate, how: str, due_ns: int = 0) -> Verdict:
    return Verdict(action=action, rule=fate.rule, reason=f"{fate.reason}; {how}", due_ns=due_ns)


def _fate_of_node(holding: Holding, node: NodeState) -> Fate:
    if node in ("gone", "out_of_service"):
        return Fate(over=True, rule="container", reason="its container was on a node that is no more")
    return _kept("container", "no pod stands behind it: its node tells when it ends")


def fate_of(state: State, facts: Facts, holding: Holding, node: NodeState, now_ns: int) -> Fate:
    """The first row that fits, for what a pod holds."""
    namespace, name = holding.namespace, holding.name
    pod = facts.pods.get((namespace, name))
    wanted = is_wanted(facts, namespace, name) and _is_next(state, holding)
    if pod is None:
        if wanted:
            return _kept(
                "missing, static", f"a StatefulSet wants pod {namespace}/{name}, which will have it again"
            )
        return Fate(
            over=True, rule="missing", reason=f"pod {namespace}/{name} is gone", watch_s=_delay_s(facts)
        )
    if facts.pod_of_owner(namespace, name, holding.owner) is None:
        return _of_another(facts, pod, wanted)
    if pod.host_network:
        return _kept("host network", "its pod uses the network of its node")
    if is_static(facts, pod):
        return _of_static(facts, pod, node, now_ns, wanted)
    return _of_stateless(facts, pod, node, now_ns)


def _is_next(state: State, holding: Holding) -> bool:
    """Only what the last of a name had is inherited."""
    same_name = state.holdings_of_pod(holding.namespace, holding.name)
    return holding.generation == max(one.generation for one in same_name)


def _of_another(facts: Facts, pod: KnownPod, wanted: bool) -> Fate:
    told = f"pod {pod.namespace}/{pod.name} has UID {pod.uid} now"
    if not is_static(facts, pod):
        return _over("other UID", told)
    if pod.has_addresses:
        return _over("other UID, static, has addresses", f"{told}, and came up with other addresses")
    if not wanted:
        return _over("other UID, static, not wanted", f"{told}, and nothing of this lease is to be inherited")
    return _kept("other UID, static", f"{told}, and has not come up: it inherits this")


def _of_static(facts: Facts, pod: KnownPod, node: NodeState, now_ns: int, wanted: bool) -> Fate:
    name = f"pod {pod.namespace}/{pod.name}"
    if wanted:
        return _kept("static", f"a StatefulSet wants {name}")
    if pod.is_finished:
        return _over("finished, static, not wanted", f"{name} has finished, and no StatefulSet wants it")
    if pod.deletion_ns:
        return _terminating(facts, pod, node, now_ns)
    if pod.phase in ("", "Pending") or pod.has_addresses:
        return _kept("static, not wanted", f"no StatefulSet wants {name}, and it lives still")
    return _over("no addresses, static, not wanted", f"{name} has no address, and no StatefulSet wants it")


def _of_stateless(facts: Facts, pod: KnownPod, node: NodeState, now_ns: int) -> Fate:
    name = f"pod {pod.namespace}/{pod.name}"
    if pod.deletion_ns:
        return _terminating(facts, pod, node, now_ns)
    if pod.is_finished:
        return _due(facts, pod, node, now_ns, "finished", f"{name} has ended ({pod.phase})")
    if pod.phase in ("", "Pending"):
        return _kept(
            "pending", f"{name} is starting" if pod.phase else f"{name} is there, its status is not told"
        )
    if pod.has_addresses:
        return _kept("has addresses", f"{name} lives")
    if pod.phase == "Running":
        if facts.settings.gc.stateless_pod.enable_gc_running_pod_on_empty_pod_status_ips:
            return _over("running, no addresses", f"{name} runs and its status has no address")
        return _kept(
            "running, no addresses",
            f"{name} runs and its status has no address (enableGcRunningPodOnEmptyPodStatusIPs is off)",
        )
    return _over(
        "unknown phase, no addresses", f"{name} is in phase {pod.phase} and its status has no address"
    )


def _terminating(facts: Facts, pod: KnownPod, node: NodeState, now_ns: int) -> Fate:
    name = f"pod {pod.namespace}/{pod.name}"
    if now_ns < _due_ns(facts, pod) and not pod.has_addresses and pod.phase not in ("", "Pending"):
        return _over("terminating, no addresses", f"{name} terminates and its status has no address")
    return _due(facts, pod, node, now_ns, "terminating", f"{name} terminates")


def _due(facts: Facts, pod: KnownPod, node: NodeState, now_ns: int, rule: str, reason: str) -> Fate:
    """Past its time a pod is over where the switch for the readiness of its node says so."""
    due_ns = _due_ns(facts, pod)
    if now_ns < due_ns:
        return Fate(
            over=False,
            rule=f"{rule}, within grace",
            reason=f"{reason}, within its grace period",
            due_ns=due_ns,
        )
    switches = facts.settings.gc.stateless_pod
    if node == "unknown":
        return _kept(
            f"{rule}, node unknown",
            f"{reason}, and the readiness of node {pod.node or '(none)'} is not known",
        )
    if node == "ready" and not switches.zombie_on_ready_node:
        return _kept(f"{rule}, switched off", f"{reason} on a node that is ready (zombieOnReadyNode is off)")
    if node != "ready" and not switches.zombie_on_not_ready_node:
        return _kept(
            f"{rule}, switched off", f"{reason} on a node that is not ready (zombieOnNotReadyNode is off)"
        )
    return Fate(
        over=True,
        rule=rule,
        reason=f"{reason}, past its grace period",
        watch_s=min(WATCHED_MAX_S, _grace_s(facts, pod)),
    )


def _due_ns(facts: Facts, pod: KnownPod) -> int:
    return (pod.deletion_ns or pod.finished_ns) + _grace_s(facts, pod) * SECOND_NS


def _grace_s(facts: Facts, pod: KnownPod) -> int:
    return (pod.deletion_grace_s if pod.deletion_ns else pod.termination_grace_s) + _delay_s(facts)


def _kept(rule: str, reason: str) -> Fate:
    return Fate(over=False, rule=rule, reason=reason)


def _over(rule: str, reason: str) -> Fate:
    return Fate(over=True, rule=rule, reason=reason)


def _delay_s(facts: Facts) -> int:
    return facts.settings.gc.gc_deleting_time_out_pod_delay


def judge_interfaces(
    facts: Facts, holding: Holding, verdict: Verdict
) -> Iterator[tuple[tuple[str, ...], Verdict]]:
    """The verdict over each interface. A living pod that has come up asks no more for what it inherited and did not ask for."""
    pod = facts.pod_of_owner(holding.namespace, holding.name, holding.owner) if holding.namespace else None
    unasked: tuple[str, ...] = ()
    if facts.settings.gc.enabled and verdict.action == "keep" and pod is not None and pod.has_addresses:
        unasked = tuple(name for name, held in holding.interfaces.items() if held.inherited)
    if unasked:
        reason = f"pod {holding.namespace}/{holding.name} came up without this interface of the pod before it"
        yield unasked, Verdict(action="release", rule="not asked for", reason=reason)
    rest = tuple(name for name in holding.interfaces if name not in unasked)
    if rest:
        yield rest, verdict


def events_of(
    holding: Holding, ifnames: tuple[str, ...], verdict: Verdict, now_ns: int
) -> tuple[LeaseEvent, ...]:
    """What a verdict that frees addresses appends. What others attached may be there a moment longer than its pod's object."""
    if verdict.action not in ("release", "quarantine"):
        return ()
    held = [holding.interfaces[name] for name in ifnames]
    rest_until_ns = max(one.rest_until_ns for one in held)
    if any(one.adopted for one in held):
        rest_until_ns = max(rest_until_ns, now_ns + int(limits.COOLDOWN_ADOPTED_S * SECOND_NS))
    released = LeasesReleased(
        owner=holding.owner,
        ifnames=ifnames,
        reason=f"collected: {verdict.rule}",
        rest_until_ns=rest_until_ns if rest_until_ns > now_ns else 0,
    )
    if verdict.action == "release":
        return (released,)
    kept = quarantined(
        holding, zip(ifnames, held, strict=True), "released while its node could not be reached"
    )
    return (kept, released)
