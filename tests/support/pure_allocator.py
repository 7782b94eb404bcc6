"""The allocator's pure core as its leader uses it, without a bus: YAML manifests in, decisions out, a log of real records.

    world = World(pool("p4", "10.6.0.0/24", "10.6.0.10-10.6.0.20"), pod("web-0", annotations={...}))
    world.addresses(world.add("shop/web-0"))

Everything but the bus and the clock is the product's own code. Pods' objects change facts only; `collect` follows each
change as it does in the leader.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping

import msgspec

from services.allocator.audit import audit
from services.allocator.decide import (
    Accepted,
    AskFacts,
    Rejected,
    decide_allocate,
    decide_collect,
    decide_release,
    decide_succession,
    grants_of,
)
from services.allocator.facts import Changes, Facts
from services.allocator.state import Snapshot, State
from shared.contracts.codec import Codec, encode
from shared.contracts.facts import Fact, FactsSynced, ObjectFact, ObjectGone
from shared.contracts.ipam import Allocate, Grant, InterfaceRequest, Release
from shared.contracts.lease import RECORD, LeaseEvent, Record, digest
from shared.manifests.document import parse
from shared.net.ranges import parse_address
from shared.selection.rule import Refusal

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
GROUP = "spiderpool.spidernet.io/v2beta1"
SNAPSHOT: Codec[Snapshot] = Codec(Snapshot)


def manifest(kind: str, name: str, spec: Mapping[str, object], **metadata: object) -> str:
    """A manifest; its parts in YAML's flow style, as JSON is."""
    api_version = GROUP if kind.startswith("Spider") else "v1"
    meta = json.dumps({"name": name, **metadata})
    return f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {meta}\nspec: {json.dumps(spec)}\n"


def pool(
    name: str, subnet: str, *ips: str, terminating: bool = False, created: str = "", **spec: object
) -> str:
    """`created` is a creationTimestamp, as a folder's pools have none."""
    meta: dict[str, object] = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if terminating else {}
    meta |= {"creationTimestamp": created} if created else {}
    return manifest("SpiderIPPool", name, {"subnet": subnet, "ips": list(ips), **spec}, **meta)


def reserved(name: str, *ips: str) -> str:
    return manifest("SpiderReservedIP", name, {"ips": list(ips)})


def namespace(name: str, labels: Mapping[str, str] = {}, annotations: Mapping[str, str] = {}) -> str:
    return manifest("Namespace", name, {}, labels=labels, annotations=annotations)


def node(name: str, **labels: str) -> str:
    return manifest("Node", name, {}, labels=labels)


def stateful_set(name: str, replicas: int = 1, start: int = 0, terminating: bool = False) -> str:
    """`name` is `namespace/name`."""
    ns, _, short = name.partition("/")
    meta: dict[str, object] = {"name": short, "namespace": ns, "uid": f"uid-{short}"}
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {
        "replicas": replicas,
        "ordinals": {"start": start},
        "selector": {"matchLabels": {"app": short}},
        "template": {"metadata": {"labels": {"app": short}}, "spec": {"containers": [{"name": "c"}]}},
    }
    return f"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {json.dumps(meta)}\nspec: {json.dumps(spec)}\n"


def pod(
    name: str,
    *,
    uid: str | None = None,
    node: str = "n1",
    labels: Mapping[str, str] = {},
    annotations: Mapping[str, object] = {},
    owner: str = "",
    terminating: bool = False,
    phase: str = "Running",
    reason: str = "",
    restart_policy: str = "Always",
    containers: int = 1,
    ips: tuple[str, ...] = (),
    deleted_at: str = "2026-01-01T00:00:00Z",
    grace_s: int = 30,
    finished_at: str = "",
    host_network: bool = False,
) -> str:
    """`name` is `namespace/name`. `uid` None is one made of the name; empty is a manifest without UID. `owner` is a kind, or
    `kind/name`; `deleted_at` counts for one that is terminating."""
    ns, _, short = name.partition("/")
    meta: dict[str, object] = {
        "name": short,
        "namespace": ns,
        "labels": labels,
        "annotations": {k: v if isinstance(v, str) else json.dumps(v) for k, v in annotations.items()},
    }
    if uid is None or uid:
        meta["uid"] = uid or f"uid-{short}"
    if owner:
        reference = {
            "apiVersion": "apps/v1",
            "kind": owner.partition("/")[0],
            "name": owner.partition("/")[2] or "app",
            "uid": "u-app",
            "controller": True,
        }
        meta["ownerReferences"] = [reference]
    if terminating:
        meta["deletionTimestamp"] = deleted_at
        meta["deletionGracePeriodSeconds"] = grace_s
    spec = {
        "nodeName": node,
        "hostNetwork": host_network,
        "terminationGracePeriodSeconds": grace_s,
        "restartPolicy": restart_policy,
        "containers": [{"name": f"c{i}", "image": "pause"} for i in range(containers)],
    }
    status: dict[str, object] = {"phase": phase, **({"reason": reason} if reason else {})}
    if ips:
        status["podIPs"] = [{"ip": one} for one in ips]
    if finished_at:
        status["containerStatuses"] = [
            {"name": "c0", "state": {"terminated": {"exitCode": 0, "finishedAt": finished_at}}}
        ]
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {json.dumps(meta)}\n"
        f"spec: {json.dumps(spec)}\nstatus: {json.dumps(status)}\n"
    )


def settings(**values: object) -> str:
    lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in values.items())
    return (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: spiderpool-conf, namespace: kube-system}\n"
        f"data:\n  conf.yml: |\n{lines}"
    )


def network(
    name: str, ipv4: Iterable[str] = (), ipv6: Iterable[str] = (), renamed: str = "", **spec: object
) -> str:
    """`name` is `namespace/name`; `renamed` is the name under which pods know it."""
    ns, _, short = name.partition("/")
    pools = {"ipv4": list(ipv4), "ipv6": list(ipv6)}
    body = {"cniType": "macvlan", "macvlan": {"master": ["eth1"], "ippools": pools}, **spec}
    marks = {"annotations": {"multus.spidernet.io/cr-name": renamed}} if renamed else {}
    return manifest("SpiderMultusConfig", short, body, namespace=ns, **marks)


class World:
    """State, facts and time of one leading allocator."""

    def __init__(self, *manifests: str) -> None:
        self.state = State()
        self.facts = Facts()
        self.now_ns = START_NS
        self.latest_ns = START_NS
        self.records: list[bytes] = []
        self._versions = itertools.count(1)
        self._attempts = itertools.count(1)
        self.facts.apply(FactsSynced(incarnation="c1", version=0, objects=0), 0)
        self.apply(*manifests)

    # Facts

    def apply(self, *manifests: str) -> None:
        for text in manifests:
            file = parse(text, "test.yaml")
            assert not file.problems, file.problems
            for document in file.documents:
                self._take(
                    ObjectFact(
                        kind=document.key.kind,
                        api_version=document.api_version,
                        namespace=document.key.namespace,
                        name=document.key.name,
                        uid=str(document.raw["metadata"].get("uid", "")),
                        version=next(self._versions),
                        object=msgspec.json.encode(document.raw),
                    )
                )

    def delete(self, kind: str, name: str, namespace: str = "", uid: str = "") -> None:
        self._take(
            ObjectGone(kind=kind, namespace=namespace, name=name, uid=uid, version=next(self._versions))
        )

    def delete_pod(self, name: str) -> None:
        ns, _, short = name.partition("/")
        self.delete("Pod", short, ns)

    def _take(self, fact: Fact) -> None:
        changes: Changes = self.facts.apply(fact, 0)
        if changes.pools:
            self.state.put_pools({name: self.facts.pool_space(name) for name in changes.pools})
        for ns, name in changes.pods:
            self.commit(decide_collect(self.state, self.facts, ns, name, self.now_ns).events)
        for ns, name in changes.stateful_sets:
            for of_set in self.state.pods_of_set(ns, name):
                self.commit(decide_collect(self.state, self.facts, ns, of_set, self.now_ns).events)

    # Commands

    def command(
        self,
        pod: str = "",
        *interfaces: InterfaceRequest | str,
        uid: str | None = None,
        node: str = "n1",
        container: str = "",
        attempt: str = "",
        ipv4: Iterable[str] = (),
        ipv6: Iterable[str] = (),
        further: bool = False,
    ) -> Allocate:
        """`pod` is `namespace/name` or empty for a plain container; `uid` None is the one that `pod()` makes of the name."""
        ns, _, short = pod.partition("/")
        requests = tuple(
            InterfaceRequest(ifname=one, ipv4=tuple(ipv4), ipv6=tuple(ipv6)) if isinstance(one, str) else one
            for one in interfaces or ("eth0",)
        )
        return Allocate(
            attempt=attempt or f"attempt-{next(self._attempts)}",
            node=node,
            container_id=container or f"sandbox-{short}",
            ifname=requests[0].ifname,
            interfaces=requests,
            ttl_ms=60_000,
            pod_namespace=ns,
            pod_name=short,
            pod_uid=(f"uid-{short}" if short else "") if uid is None else uid,
            further_networks=further,
        )

    def decide(self, command: Allocate, *, asked: bool = True) -> Accepted | Rejected | AskFacts:
        """Decides and, if accepted, appends."""
        self._wake()
        self.commit(decide_succession(self.state, self.facts, command, self.now_ns).events)
        decision = decide_allocate(self.state, self.facts, command, self.now_ns, asked=asked)
        if isinstance(decision, Accepted):
            self.commit(decision.events)
        return decision

    def add(self, pod: str = "", *interfaces: InterfaceRequest | str, **options: object) -> tuple[Grant, ...]:
        """An allocation that must be accepted; the grants of the requested interfaces and those taken ahead."""
        command = self.command(pod, *interfaces, **options)  # type: ignore[arg-type]
        decision = self.decide(command)
        assert isinstance(decision, Accepted), decision
        return grants_of(self.state, self.facts, decision.owner)

    def refused(self, pod: str = "", *interfaces: InterfaceRequest | str, **options: object) -> Refusal:
        """An allocation that must be refused; and a refusal changes nothing."""
        before = self.canonical()
        decision = self.decide(self.command(pod, *interfaces, **options))  # type: ignore[arg-type]
        assert isinstance(decision, Rejected), decision
        assert self.canonical() == before
        return decision.refusal

    def release(
        self,
        container: str,
        ifname: str = "eth0",
        *,
        generation: int | None = None,
        attempt: str = "attempt-?",
        node: str = "n1",
        cooldown_s: float = 0.0,
    ) -> Accepted:
        """A DEL; `generation` None is the one held now."""
        if generation is None:
            generation = next(
                (
                    held.generation
                    for holding, name, held, _ in self.state.leases()
                    if (holding.container_id, name) == (container, ifname)
                ),
                -1,
            )
        command = Release(
            node=node,
            container_id=container,
            ifname=ifname,
            attempt=attempt,
            generation=generation,
            cooldown_s=cooldown_s,
        )
        self._wake()
        decision = decide_release(self.state, self.facts, command, self.now_ns)
        self.commit(decision.events)
        return decision

    def _wake(self) -> None:
        """What a clock that went back had ended stays ended in memory; a replay knows nothing of that clock."""
        self.latest_ns = max(self.latest_ns, self.now_ns)
        self.state.wake(self.now_ns)

    # The log

    def commit(self, events: tuple[LeaseEvent, ...]) -> None:
        """One record, as the leader appends it; every event was applied before."""
        if not events:
            return
        for event in events:
            self.state.evolve(event)
        record = Record(
            incarnation="i1", term=1, at_ns=self.now_ns, previous=self.state.digest, events=events
        )
        payload = encode(record)
        self.records.append(payload)
        self.state.advance(record, len(self.records), digest(payload))
        assert audit(self.state) == ()

    def replayed(self) -> State:
        """A state from all records of the log, under the facts of now."""
        state = State()
        for sequence, payload in enumerate(self.records, 1):
            record = RECORD.decode(payload)
            assert record.previous == state.digest
            state.fold(record, sequence, digest(payload))
        return self._with_pools(state)

    def restored(self) -> State:
        """A state from a snapshot that went through bytes."""
        return self._with_pools(State.from_snapshot(SNAPSHOT.decode(encode(self.state.snapshot()))))

    def _with_pools(self, state: State) -> State:
        state.put_pools({name: self.facts.pool_space(name) for name in self.facts.pools})
        self.latest_ns = max(self.latest_ns, self.now_ns)
        state.wake(self.latest_ns)
        return state

    # Looking

    def held(self) -> dict[str, str]:
        """Address → owner/interface."""
        out: dict[str, str] = {}
        for holding, ifname, _, lease in self.state.leases():
            family, address = lease.family, lease.address
            key = f"{family}/{address:x}"
            assert key not in out, f"{key} is held twice"
            out[key] = f"{holding.owner}/{ifname}"
        return out

    def is_held(self, address: str) -> bool:
        return self.state.holder(*parse_address(address)) is not None

    def canonical(self, state: State | None = None) -> object:
        """All of a state that means something, comparable."""
        state = state or self.state
        free = {name: state.pools.occupancy(name) for name in sorted(self.facts.pools)}
        return (
            (state.incarnation, state.term, state.sequence, state.digest, state.at_ns, state.generation),
            {owner: msgspec.to_builtins(holding) for owner, holding in state.holdings.items()},
            {
                key: resting.until_ns
                for key, resting in state.resting.items()
                if resting.until_ns > self.latest_ns
            },
            {attempt: until for attempt, until in state.voided.items() if until > self.latest_ns},
            {family: dict(taken) for family, taken in state.taken.items()},
            {
                name: (occupancy.free_count, tuple(itertools.islice(occupancy.ascending(), 100)))
                for name, occupancy in free.items()
                if occupancy is not None
            },
        )


def addresses(grants: Iterable[Grant], ifname: str = "") -> list[str]:
    """The addresses without prefix length, of one interface or of all."""
    return [grant.address.partition("/")[0] for grant in grants if ifname in ("", grant.ifname)]
