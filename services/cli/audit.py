"""What is wrong, or soon will be, with a system as it was seen: `orbweaver doctor`'s checks. Pure.

Owns the checks and the ways out. Must not collect anything: a check is a function from what was Seen to findings, and is added
to CHECKS. A check that finds nothing wrong says so in one finding, so that a reader knows that it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, cast

import msgspec

from services.cli.status import total_ips
from shared.audit import Evidence, Kind, Up, bare, judge
from shared.contracts.facts import SourceProblem
from shared.contracts.query import AllocatorView, AttachmentView, LeaseView, StrayView
from shared.net.ranges import IntervalSet, parse_address

Json = dict[str, Any]
Result = Literal["ok", "warn", "fail"]
NEARLY_FULL = 0.8
NEIGHBOURS_WANTED = 28160
"""The value of gc_thresh3 that the reference sets on its nodes."""
SHOWN_MAX = 10
"""Findings of one check that are listed each; the rest is a number."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is empty when it is ready."""

    instance: str
    node: str = ""
    reason: str = ""
    restarts: int = 0
    log: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a system. `log_before`, `log_after` are the last sequence of the lease log around the moment when `leader`
    answered. A node whose agent is silent has None for attachments. `strays` are addresses on links of a node in namespaces where
    no attachment has them. `gc_thresh3` holds the readable of ipv4, ipv6."""

    services: tuple[Service, ...] = ()
    leader: AllocatorView | None = None
    log_before: int = 0
    log_after: int = 0
    leases: tuple[LeaseView, ...] = ()
    attachments: Mapping[str, tuple[AttachmentView, ...] | None] = {}
    strays: Mapping[str, tuple[StrayView, ...]] = {}
    pools: tuple[Json, ...] = ()
    problems: tuple[SourceProblem, ...] = ()
    gc_thresh3: Mapping[str, int] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`way_out` is what a person does about it, empty for ok."""

    check: str
    result: Result
    sentence: str
    way_out: str = ""


Check = Callable[[Seen], list[Finding]]


def audit(seen: Seen) -> list[Finding]:
    """Every finding of every check, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(seen)]


def lasting(first: Iterable[Finding], second: Iterable[Finding]) -> list[Finding]:
    """Of the second look, what the first had seen too: an attach under way looks wrong for a moment. What is ok stays ok."""
    before = {(f.check, f.sentence) for f in first}
    kept = [f for f in second if f.result == "ok" or (f.check, f.sentence) in before]
    quiet = {f.check for f in second} - {f.check for f in kept}
    return kept + [_ok(check, "what looked wrong was under way") for check in sorted(quiet)]


def services(seen: Seen) -> list[Finding]:
    found = [
        _fail(
            "services",
            f"{s.instance} is not ready: {s.reason}",
            f"its log is {s.log}" if s.log else "orbweaver status",
        )
        for s in seen.services
        if s.reason
    ]
    found += [
        _warn("services", f"{s.instance} was restarted {s.restarts} times", f"its log is {s.log}")
        for s in seen.services
        if s.restarts and not s.reason
    ]
    return found or [_ok("services", f"all {len(seen.services)} run and are ready")]


def leader(seen: Seen) -> list[Finding]:
    if seen.leader is None:
        way_out = "the logs of both allocators tell why; agents keep their attachments meanwhile"
        return [_fail("leader", "no allocator leads: nothing can be attached", way_out)]
    if not seen.leader.facts_synced:
        way_out = "orbweaver sync, and the controller's log"
        return [_warn("leader", f"{seen.leader.replica} leads, but has not read the manifests", way_out)]
    found = [
        _fail("leader", f"{seen.leader.replica}: {violation}", "keep the state directory and report this")
        for violation in seen.leader.violations
    ]
    return found or [_ok("leader", f"{seen.leader.replica} leads in term {seen.leader.term}")]


def lease_log(seen: Seen) -> list[Finding]:
    if seen.leader is None:
        return []
    at = seen.leader.mark.sequence
    if at > seen.log_after:
        return [
            _fail(
                "lease log",
                f"the log ends at {seen.log_after}, but the leader has seen {at}: acknowledged records are lost",
                "the index is rebuilt from the nodes' journals by itself; if this stays, restart the allocators",
            )
        ]
    if at < seen.log_before:
        way_out = "orbweaver status; if it stays, the leader's log"
        return [_warn("lease log", f"the leader is {seen.log_before - at} records behind the log", way_out)]
    return [
        _ok(
            "lease log",
            f"{seen.leader.leases} leases at record {at}, incarnation {seen.leader.mark.incarnation[:8]}",
        )
    ]


def agents(seen: Seen) -> list[Finding]:
    """Silent agents, and attachments that differ from the kernel."""
    found = [
        _fail("agents", f"the agent of node {node} does not answer", "orbweaver status, and the agent's log")
        for node, attachments in seen.attachments.items()
        if attachments is None
    ]
    found += _violations(seen, "agents", "kernel differs")
    # one that is under way, coming or going, is not compared
    completed = sum(a.state == "completed" for told in seen.attachments.values() for a in told or ())
    return _few(found) or [
        _ok(
            "agents",
            f"{completed} attachments on {len(seen.attachments)} nodes are as the kernel has them",
        )
    ]


def witnesses(seen: Seen) -> list[Finding]:
    """The log and the nodes must tell the same of every address."""
    found = _violations(seen, "witnesses", "no lease", "not attached", "ahead of the log", "no journal")
    held = sum(lease.state == "held" for lease in seen.leases)
    return _few(found) or [_ok("witnesses", f"log and nodes agree on {held} leases")]


def _violations(seen: Seen, check: str, *kinds: Kind) -> list[Finding]:
    """As the simulator judges, on what was seen."""
    evidence = Evidence(
        leases=seen.leases,
        kept=frozenset(seen.leader.kept if seen.leader is not None else ()),
        attachments={node: told for node, told in seen.attachments.items() if told is not None},
        up=tuple(_up(seen)),
    )
    return [_fail(check, one.sentence, one.settles) for one in judge(evidence) if one.kind in kinds]


def _up(seen: Seen) -> Iterator[Up]:
    """The strays that are ours to give: a link may also have addresses of a router's advertisements or of another plugin's range."""
    if not any(seen.strays.values()):
        return
    leased = {lease.address for lease in seen.leases}
    ranges: dict[int, list[IntervalSet]] = {4: [], 6: []}
    for pool in seen.pools:
        spec = cast("Json", pool.get("spec") or {})
        ranges[6 if ":" in str(spec.get("subnet")) else 4].append(total_ips(spec))
    for node, strays in seen.strays.items():
        for address, netns in ((bare(stray.address), stray.netns) for stray in strays):
            try:
                family, value = parse_address(address)
            except ValueError:
                continue  # whatever that node runs, it is no agent of ours
            if address in leased or any(value in one for one in ranges[family]):
                yield Up(node=node, netns=netns, address=address, container_id="")


def claims(seen: Seen) -> list[Finding]:
    """What the leader has heard from the nodes and cannot settle by itself."""
    if seen.leader is None:
        return []
    found = [_warn("claims", one.sentence, one.settles) for one in seen.leader.disagreements]
    if seen.leader.silent:
        nodes = ", ".join(seen.leader.silent[:SHOWN_MAX])
        way_out = "start their agents, or delete their Node objects"
        if seen.leader.unsafe:
            sentence = f"records of the log were lost, and these nodes have not told what they hold: {nodes}; nothing new is given"
            found.append(_fail("claims", sentence, way_out))
        else:
            sentence = f"since the log was rebuilt these nodes have not told what they hold: {nodes}"
            found.append(_warn("claims", sentence, way_out))
    return _few(found) or [_ok("claims", "no node claims what is not its own")]


def duplicates(seen: Seen) -> list[Finding]:
    found = _violations(seen, "duplicates", "used twice")
    return _few(found) or [_ok("duplicates", "no address is used twice")]


def pools(seen: Seen) -> list[Finding]:
    taken: dict[str, int] = {}
    for lease in seen.leases:
        if lease.state != "resting":
            taken[lease.pool] = taken.get(lease.pool, 0) + 1
    found: list[Finding] = []
    for pool in seen.pools:
        name = str(cast("Json", pool.get("metadata") or {}).get("name"))
        size, used = total_ips(cast("Json", pool.get("spec") or {})).size(), taken.get(name, 0)
        if size and used >= size:
            found.append(
                _fail("pools", f"pool {name} is exhausted: {used} of {size}", "add a range to its `ips`")
            )
        elif size and used >= size * NEARLY_FULL:
            found.append(
                _warn("pools", f"pool {name} is nearly full: {used} of {size}", "add a range to its `ips`")
            )
    return _few(found) or [_ok("pools", f"{len(seen.pools)} pools have room")]


def files(seen: Seen) -> list[Finding]:
    found = [
        _fail(
            "files",
            f"{' '.join(filter(None, (f'{p.file}:{p.line}' if p.file else '', p.object, p.field)))}: {p.message}",
            f"correct the {'file' if p.file else 'object'}; what it last said rightly stays in force",
        )
        for p in seen.problems
    ]
    return _few(found) or [_ok("files", "everything that was written is in force")]


def neighbours(seen: Seen) -> list[Finding]:
    """On one flat network every pod is a neighbour of every other; a full table drops packets. Nothing is said of tables that were not
    seen: those of a cluster's nodes."""
    if not seen.gc_thresh3:
        return []
    found: list[Finding] = []
    for family, limit in seen.gc_thresh3.items():
        word = "6" if family == "ipv6" else "4"
        possible = sum(
            total_ips(cast("Json", p.get("spec") or {})).size()
            for p in seen.pools
            if str(cast("Json", p.get("spec") or {}).get("ipVersion")) == word
        )
        if limit < min(possible, NEIGHBOURS_WANTED):
            name = f"net.{family}.neigh.default.gc_thresh3"
            sentence = f"{name} is {limit}, but the pools have {_rounded(possible)} addresses"
            found.append(_warn("neighbours", sentence, f"sysctl -w {name}={NEIGHBOURS_WANTED}"))
    return found or [_ok("neighbours", "the neighbour tables hold all that the pools can give")]


CHECKS: tuple[Check, ...] = (
    services,
    leader,
    lease_log,
    agents,
    witnesses,
    claims,
    duplicates,
    pools,
    files,
    neighbours,
)


def _ok(check: str, sentence: str) -> Finding:
    return Finding(check=check, result="ok", sentence=sentence)


def _warn(check: str, sentence: str, way_out: str) -> Finding:
    return Finding(check=check, result="warn", sentence=sentence, way_out=way_out)


def _fail(check: str, sentence: str, way_out: str) -> Finding:
    return Finding(check=check, result="fail", sentence=sentence, way_out=way_out)


def _few(found: list[Finding]) -> list[Finding]:
    """Fails before warnings, and not more than a person reads."""
    ordered = sorted(found, key=lambda f: f.result != "fail")
    if len(ordered) <= SHOWN_MAX:
        return ordered
    more = ordered[SHOWN_MAX]
    rest = Finding(
        check=more.check,
        result=more.result,
        sentence=f"and {len(ordered) - SHOWN_MAX} more",
        way_out="`-o json` has the same; mend these first",
    )
    return [*ordered[:SHOWN_MAX], rest]


def _rounded(count: int) -> str:
    return str(count) if count < 10**6 else "more than a million"
