"""One example of every message: the value that its golden bytes stand for.

The bytes in golden/ are what some running process may still send. A file there is never changed and never removed; a new field has a
default, so an old file goes on meaning the same value; a new tag gets a new file:

    .venv/bin/python -m tests.contract.examples        # writes the files that are missing, and no other
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.contracts import (
    adopt,
    attach,
    collect,
    disagreement,
    facts,
    inventory,
    ipam,
    lease,
    mark,
    mirrored,
    query,
    span,
    witness,
)
from shared.contracts.codec import encode

GOLDEN = Path(__file__).parent / "golden"
MODULES = (
    adopt,
    attach,
    collect,
    disagreement,
    facts,
    inventory,
    ipam,
    lease,
    mark,
    mirrored,
    query,
    span,
    witness,
)

_MARK = ipam.Mark(incarnation="i1", sequence=41, digest="00ff")
_FACT = facts.ObjectFact(
    kind="SpiderIPPool",
    api_version="spiderpool.spidernet.io/v2beta1",
    namespace="",
    name="rack-1",
    uid="9d3f",
    version=7,
    object=b'{"kind":"SpiderIPPool"}',
    source="pools.yaml:3",
)
_LEASE_VIEW = query.LeaseView(
    address="10.6.0.12",
    pool="rack-1",
    interface="eth0",
    pod_namespace="shop",
    pod_name="web-0",
    pod_uid="u1",
    container_id="c1",
    node="n1",
    generation=3,
    state="detached",
    prefix_len=16,
    gateway="10.6.0.1",
    clean_gateway=True,
)
_POD = {"pod_namespace": "shop", "pod_name": "web-0", "pod_uid": "u1"}
_EVENT = {"at_ns": 1_700_000_000_000_000_001, "node": "n1", "container_id": "c1", "ifname": "eth0", **_POD}

_STATUS = attach.NetworkStatus(
    name="kube-system/fast",
    interface="net1",
    ips=("10.7.0.12",),
    mac="02:00:00:00:00:01",
    default=True,
    dns={},
)

EXAMPLES: dict[str, msgspec.Struct] = {
    "attach.completed.1": attach.AttachCompleted(
        **_EVENT, addresses=("10.6.0.12/16", "fd00::c/64"), duration_ms=9.5, trace_id="ab12"
    ),
    "attach.completed.1.networks": attach.AttachCompleted(
        **_EVENT,
        addresses=("10.6.0.12/16",),
        duration_ms=9.5,
        trace_id="ab12",
        network_status=(_STATUS,),
    ),
    "attach.failed.1": attach.AttachFailed(
        **_EVENT, error="pool_exhausted", message="rack-1 is full", duration_ms=4.25, trace_id="ab12"
    ),
    "attach.detached.1": attach.Detached(
        **_EVENT, addresses=("10.6.0.12/16",), reason="DEL", duration_ms=1.5, trace_id="ab12"
    ),
    "attach.sweep.stopped.1": attach.SweepStopped(at_ns=5, node="n1", gone=40, attachments=100),
    "facts.object.1": _FACT,
    "facts.gone.1": facts.ObjectGone(kind="Pod", namespace="shop", name="web-0", uid="u1", version=8),
    "facts.synced.1": facts.FactsSynced(incarnation="i1", version=9, objects=2),
    "facts.term.1": facts.FactsTerm(incarnation="i1", replica="c1"),
    "ask.fact.1": facts.AskFact(kind="Pod", namespace="shop", name="web-0"),
    "ask.fact.answer.1": facts.FactAnswer(fact=_FACT),
    "ask.sync.1": facts.AskSync(),
    "ask.sync.answer.1": facts.SyncAnswer(
        facts_sequence=12,
        objects=2,
        problems=(
            facts.SourceProblem(
                file="pools.yaml",
                line=3,
                object="SpiderIPPool/rack-1",
                field="spec.ips[0]",
                message="not a range",
            ),
        ),
    ),
    "inventory.rdma.1": inventory.RdmaInventory(
        node="n1",
        at_ns=6,
        netns_mode="exclusive",
        devices=(
            inventory.RdmaDevice(
                name="mlx5_2",
                node_guid="0c42:a103:0016:0540",
                ports=(inventory.RdmaPort(number=1, state="ACTIVE", link_layer="Ethernet", gids=4, pkeys=1),),
                netdevs=("ens1f0v0",),
                pci_address="0000:5e:00.2",
                numa_node=1,
                physical_function="mlx5_0",
            ),
        ),
    ),
    "ipam.allocate.1": ipam.Allocate(
        attempt="aa",
        node="n1",
        container_id="c1",
        ifname="eth0",
        interfaces=(
            ipam.InterfaceRequest(
                ifname="eth0",
                network="kube-system/macvlan",
                ipv4=("rack-*",),
                ipv6=("v6",),
                clean_gateway=True,
            ),
        ),
        ttl_ms=59_000,
        **_POD,
        seen=_MARK,
    ),
    "ipam.allocate.1.networks": ipam.Allocate(
        attempt="aa",
        node="n1",
        container_id="c1",
        ifname="eth0",
        interfaces=(ipam.InterfaceRequest(ifname="eth0"),),
        ttl_ms=59_000,
        **_POD,
        seen=_MARK,
        further_networks=True,
    ),
    "ipam.allocated.1.networks": ipam.Allocated(
        attempt="aa",
        pod_uid="u1",
        grants=(ipam.Grant(ifname="net1", family=4, address="10.7.0.12/16", pool="fast", generation=3),),
        mark=_MARK,
        term=2,
        networks={"kube-system/fast": '{"cniType":"macvlan"}'},
        interfaces=(
            ipam.NetworkInterface(ifname="eth0"),
            ipam.NetworkInterface(ifname="net1", network="kube-system/fast"),
        ),
    ),
    "release.attachment.1.networks": ipam.Release(
        node="n1",
        container_id="c1",
        ifname="eth0",
        attempt="aa",
        generation=3,
        others=(ipam.ReleasedInterface(ifname="net1", generation=4),),
    ),
    "ipam.allocated.1": ipam.Allocated(
        attempt="aa",
        pod_uid="u1",
        grants=(
            ipam.Grant(
                ifname="eth0",
                family=4,
                address="10.6.0.12/16",
                pool="rack-1",
                generation=3,
                gateway="10.6.0.1",
                clean_gateway=True,
                routes=(ipam.Route(dst="10.7.0.0/16", gw="10.6.0.2"),),
            ),
        ),
        mark=_MARK,
        term=2,
        networks={"kube-system/macvlan": '{"cniType":"macvlan"}'},
        default_route_nic="eth0",
    ),
    "ipam.refused.1": ipam.Refused(attempt="aa", error="pool_exhausted", message="rack-1 is full"),
    "release.attachment.1": ipam.Release(
        node="n1",
        container_id="c1",
        ifname="eth0",
        attempt="aa",
        generation=3,
        pod_uid="u1",
        cooldown_s=5.0,
        reason="GC",
    ),
    "term.started.1": lease.TermStarted(replica="a1"),
    "clock.moved.1": lease.ClockMoved(by_ns=3_600_000_000_000),
    "leases.allocated.1": lease.LeasesAllocated(
        owner="u1",
        node="n1",
        container_id="c1",
        attempt="aa",
        generation=3,
        items=(
            lease.LeaseItem(
                ifname="eth0", address="10.6.0.12", pool="rack-1", prefix_len=16, clean_gateway=True
            ),
        ),
        attached=("eth0",),
        pod_namespace="shop",
        pod_name="web-0",
    ),
    "attach.confirmed.1": lease.AttachConfirmed(owner="u1", container_id="c1", ifname="eth0", attempt="ab"),
    "leases.rebound.1": lease.LeasesRebound(
        owner="u1", node="n1", container_id="c2", attempt="ac", generation=4, attached=("eth0",)
    ),
    "attachment.detached.1": lease.AttachmentDetached(owner="u1", ifname="eth0", generation=4),
    "leases.released.1": lease.LeasesReleased(owner="u1", ifnames=("eth0",), reason="DEL", rest_until_ns=77),
    "attempt.voided.1": lease.AttemptVoided(attempt="ad", until_ns=78),
    "log.rebuilt.1": lease.LogRebuilt(
        lost="i0",
        reason="the log is empty",
        reported=("n1",),
        silent=("n2",),
        complete=False,
        generation=9,
    ),
    "log.rebuilt.1.known": lease.LogRebuilt(
        lost="i0", reason="the log ends at 40", reported=("n1",), epoch=2, lost_sequence=40
    ),
    "mark.keep.1": mark.KeepMark(
        mark=mark.LogMark(incarnation="i1", sequence=41, digest="00ff", epoch=2, nodes=("n1",))
    ),
    "mark.keep.1.unmirrored": mark.KeepMark(
        mark=mark.LogMark(incarnation="i1", sequence=42, digest="00fe", unmirrored=("n2",))
    ),
    "ask.mirrored.1": mirrored.AskMirrored(nodes=("n1", "n2"), after="page-2"),
    "mirrored.page.1": mirrored.MirroredPage(
        through=mark.Mirrored(incarnation="i1", sequence=40),
        addresses=(
            adopt.AdoptedAddress(
                address="10.6.0.12/16",
                pod_namespace="shop",
                pod_name="web-0",
                pod_uid="u1",
                pool="rack-1",
                node="n2",
                ifname="eth0",
            ),
        ),
        next_after="page-3",
    ),
    "node.reported.1": lease.NodeReported(node="n2"),
    "node.departed.1": lease.NodeDeparted(node="n2"),
    "addresses.quarantined.1": lease.AddressesQuarantined(
        items=(
            lease.QuarantinedItem(
                address="10.6.0.12",
                pool="rack-1",
                node="n1",
                container_id="c1",
                ifname="eth0",
                generation=3,
                reason="no lease",
            ),
        )
    ),
    "quarantine.lifted.1": lease.QuarantineLifted(addresses=("10.6.0.12",), reason="n1 claims it no more"),
    "witness.report.1": witness.WitnessReport(
        node="n1",
        seen=_MARK,
        digest=bytes(range(16)),
        attachments=2,
        unsettled=("c2",),
        crowded=True,
    ),
    "witness.detail.1": witness.WitnessDetail(
        node="n1",
        question="q1",
        seen=_MARK,
        part=0,
        parts=1,
        claims=(
            witness.Claim(
                container_id="c1",
                ifname="eth0",
                addresses=("10.6.0.12/16",),
                generation=3,
                state="releasing",
                attempt="aa",
                live=True,
                **_POD,
            ),
        ),
        unsettled=("c2",),
        scanned=True,
    ),
    "ask.witness.report.1": witness.AskReport(),
    "ask.witness.detail.1": witness.AskDetail(question="q1"),
    "ask.witness.adopt.1": witness.Adopt(question="q1", mark=_MARK),
    "lease.record.1": lease.Record(
        incarnation="i1",
        term=2,
        at_ns=6,
        previous=bytes(16),
        events=(lease.TermStarted(replica="a1"), lease.AttemptVoided(attempt="ad", until_ns=78)),
    ),
    "lease.snapshot.manifest.1": lease.SnapshotManifest(
        incarnation="i1",
        term=2,
        sequence=41,
        digest=bytes(range(16)),
        at_ns=6,
        chunks=2,
        size_bytes=600_000,
        sha256=bytes(32),
    ),
    "query.leases.1": query.QueryLeases(
        address="10.6.0.12",
        pool="rack-1",
        pod_namespace="shop",
        pod_name="web-0",
        node="n1",
        container_id="c1",
        after="10.6.0.11",
        limit=10,
    ),
    "query.leases.page.1": query.LeasesPage(leases=(_LEASE_VIEW,), next_after="10.6.0.12", mark=_MARK),
    "query.allocator.1": query.QueryAllocator(facts_at_least=12),
    "query.allocator.view.1": query.AllocatorView(
        replica="a1",
        term=2,
        mark=_MARK,
        leases=40,
        facts_sequence=12,
        facts_synced=True,
        violations=("two holders of 10.6.0.12",),
    ),
    "explain.pod.1": query.Explain(
        pod_namespace="shop", pod_name="web-0", ifname="net1", ipv4=("rack-1",), ipv6=("v6",), network="a/b"
    ),
    "explain.pod.answer.1": query.Explained(
        pod="shop/web-0",
        outcome="refused",
        error="pool_exhausted",
        source="annotation ippool",
        verdicts=(
            query.PoolVerdict(
                ifname="eth0", family=4, pool="rack-1", chosen=False, reason="no free address", free=0
            ),
        ),
        leases=(_LEASE_VIEW,),
    ),
    "query.attachments.1": query.QueryAttachments(check=True),
    "query.attachments.page.1": query.AttachmentsPage(
        attachments=(
            query.AttachmentView(
                container_id="c1",
                interface="eth0",
                state="completed",
                node="n1",
                network="underlay",
                netns="/run/netns/x",
                **_POD,
                addresses=("10.6.0.12/16",),
                mac="02:00:00:00:00:01",
                parent="eth1",
                generation=3,
                trace_id="ab12",
                differences=("the address is missing",),
            ),
        )
    ),
    "query.attachments.page.1.networks": query.AttachmentsPage(
        attachments=(
            query.AttachmentView(
                container_id="c1",
                interface="eth0",
                state="completed",
                node="n1",
                network_status=(_STATUS,),
            ),
        )
    ),
    "query.attachments.1.strays": query.QueryAttachments(check=True, strays=True),
    "query.attachments.page.1.strays": query.AttachmentsPage(
        attachments=(),
        strays=(query.StrayView(address="10.6.0.99/16", interface="eth0", netns="/run/netns/y"),),
    ),
    "query.service.1": query.QueryService(),
    "query.service.view.1": query.ServiceView(
        service="allocator", instance="a1", pid=12, ready=False, reason="no leader", facts={"term": "2"}
    ),
    "span.batch.1": span.SpanBatch(
        spans=(
            span.SpanRecord(
                trace_id="ab12",
                span_id="cd34",
                parent_id="ef56",
                name="decide",
                service="allocator",
                node="n1",
                start_ns=1,
                end_ns=2,
                error="no",
                attributes={"pool": "rack-1", "free": 3, "share": 0.5, "full": False},
                links=("ab13",),
            ),
        )
    ),
    "ask.detach.1": collect.AskDetach(container_id="c1", ifname="eth0", generation=3, reason="pod gone"),
    "ask.detach.answer.1": collect.DetachAnswer(outcome="failed", message="the link is busy"),
    "ipam.collect.1": collect.Collect(dry_run=False, kept=False, after="10.6.0.11", limit=5),
    "ipam.collect.verdicts.1": collect.Verdicts(
        verdicts=(
            collect.LeaseVerdict(
                address="10.6.0.12",
                pool="rack-1",
                interface="eth0",
                action="quarantine",
                rule="missing",
                reason="its pod is gone",
                **_POD,
                node="n1",
                container_id="c1",
                generation=3,
                due_ns=7,
            ),
        ),
        counts={"quarantine": 1},
        next_after="10.6.0.12",
        held_back="the objects are not all known yet",
        mark=_MARK,
    ),
    "ipam.adopt.ask.1": adopt.AskAdoption(),
    "ipam.adopt.records.1": adopt.AdoptRecords(
        records=(
            adopt.AdoptedAddress(
                address="10.6.0.12/16", **_POD, pool="rack-1", node="n1", ifname="eth0", clean_gateway=True
            ),
        ),
        facts_at_least=12,
    ),
    "ipam.adopt.end.1": adopt.EndAdoption(),
    "ipam.adoption.1": adopt.AdoptionView(
        open=True,
        adopted=1,
        refused=(adopt.NotAdopted(address="10.6.0.12", pod="shop/web-1", reason="web-0 has it"),),
        mark=_MARK,
    ),
    "leases.inherited.1": lease.LeasesInherited(
        owner="u1", heir="u2", node="n2", container_id="c2", attempt="bb", generation=4, attached=("eth0",)
    ),
    "leases.adopted.1": lease.LeasesAdopted(
        owner="u1",
        generation=5,
        items=(lease.LeaseItem(ifname="eth0", address="10.6.0.12", pool="rack-1", prefix_len=16),),
        pod_namespace="shop",
        pod_name="web-0",
        node="n1",
    ),
    "disagreement.appeared.1": disagreement.DisagreementAppeared(
        id="00ff00ff00ff00ff",
        at_ns=1_700_000_000_000_000_000,
        node="n1",
        sentence="shop/web-0 on n1 uses 10.6.0.12, for which the log has no lease",
        settles="re-create the pod",
        addresses=("10.6.0.12",),
        pod_namespace="shop",
        pod_name="web-0",
        pod_uid="u1",
    ),
    "disagreement.settled.1": disagreement.DisagreementSettled(
        id="00ff00ff00ff00ff",
        at_ns=1_700_000_060_000_000_000,
        node="n1",
        sentence="shop/web-0 on n1 uses 10.6.0.12, for which the log has no lease",
        addresses=("10.6.0.12",),
        pod_namespace="shop",
        pod_name="web-0",
        pod_uid="u1",
    ),
    "adoption.ended.1": lease.AdoptionEnded(reason="all is told"),
}


def golden_bytes(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def _write_missing() -> None:
    for name, example in EXAMPLES.items():
        path = GOLDEN / f"{name}.hex"
        if not path.exists():
            text = encode(example).hex()
            path.write_text("".join(text[i : i + 100] + "\n" for i in range(0, len(text), 100)))


if __name__ == "__main__":
    _write_missing()
