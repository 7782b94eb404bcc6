"""Questions of tools: to the leading allocator on `orb.ipam.query` and `orb.ipam.explain`, to an agent on `orb.ask.agent.<node>`,
to any service on `orb.ask.service.<service>.<instance>`.
"""

from __future__ import annotations

import msgspec

from shared.contracts.attach import NetworkStatus
from shared.contracts.codec import Codec
from shared.contracts.ipam import Mark


class LeaseView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One row of `orbweaver get leases`. `state`: held, detached (DEL heard, pod lives), ahead (taken for a later ADD), adopted
    (another IPAM gave it, another plugin attached it), resting."""

    address: str
    pool: str
    interface: str
    pod_namespace: str = msgspec.field(name="podNamespace", default="")
    pod_name: str = msgspec.field(name="podName", default="")
    pod_uid: str = msgspec.field(name="podUID", default="")
    container_id: str = msgspec.field(name="containerID", default="")
    node: str = ""
    generation: int = 0
    state: str = "held"
    prefix_len: int = msgspec.field(name="prefixLen", default=0)
    gateway: str = ""
    clean_gateway: bool = msgspec.field(name="cleanGateway", default=False)


class QueryLeases(msgspec.Struct, frozen=True, kw_only=True, tag="query.leases.1"):
    """Leases that fit every non-empty field, in the order of their addresses, from after `after`."""

    address: str = ""
    pool: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    node: str = ""
    container_id: str = ""
    after: str = ""
    limit: int = 1000


class LeasesPage(msgspec.Struct, frozen=True, kw_only=True, tag="query.leases.page.1"):
    """`next_after` is empty on the last page."""

    leases: tuple[LeaseView, ...]
    next_after: str = ""
    mark: Mark = Mark()


class QueryAllocator(msgspec.Struct, frozen=True, kw_only=True, tag="query.allocator.1"):
    """What the leading allocator has folded. With `facts_at_least` it waits until its facts are that far, for 5 s at most; the
    answer tells how far they are."""

    facts_at_least: int = 0
    audit: bool = False
    """Check the whole memory as well, which takes seconds where there are many leases."""


class DisagreementView(msgspec.Struct, frozen=True, kw_only=True):
    """Two witnesses tell different things of a lease; `settles` is what ends it."""

    node: str
    sentence: str
    settles: str


class AllocatorView(msgspec.Struct, frozen=True, kw_only=True, tag="query.allocator.view.1"):
    replica: str
    term: int
    mark: Mark
    leases: int
    facts_sequence: int
    facts_synced: bool
    violations: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    """Nodes that have not told what they hold since the log was rebuilt."""
    unsafe: bool = False
    """They may hold what nobody knows of: no new address is given."""
    quarantined: int = 0
    disagreements: tuple[DisagreementView, ...] = ()
    kept: tuple[str, ...] = ()
    """Addresses in quarantine, up to `limits.KEPT_SHOWN_MAX`."""


IpamQuery = QueryLeases | QueryAllocator
IpamAnswer = LeasesPage | AllocatorView


class Explain(msgspec.Struct, frozen=True, kw_only=True, tag="explain.pod.1"):
    pod_namespace: str
    pod_name: str
    ifname: str = "eth0"
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    network: str = ""
    further_networks: bool = False
    """All networks of the pod's annotations too, each on the interface that it would have."""


class PoolVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One pool that was looked at for one interface and family: taken in that order, or why not."""

    ifname: str
    family: int
    pool: str
    chosen: bool
    reason: str
    free: int = 0


class Explained(msgspec.Struct, frozen=True, kw_only=True, tag="explain.pod.answer.1"):
    """What would be decided now. `source` is the rule that yielded the candidates."""

    pod: str
    outcome: str
    error: str = ""
    source: str = ""
    verdicts: tuple[PoolVerdict, ...] = ()
    leases: tuple[LeaseView, ...] = ()
    warnings: tuple[str, ...] = ()
    """What of the annotations has no effect, as admission says it."""


class QueryAttachments(msgspec.Struct, frozen=True, kw_only=True, tag="query.attachments.1"):
    """`check` compares each with the kernel; `strays` has the node's namespaces looked through for what no attachment has."""

    check: bool = False
    strays: bool = False


class AttachmentView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One row of `orbweaver get attachments`: an interface. `state`: intent, completed, releasing. `networkStatus` is told with
    the interface that the runtime asked for, of all that were attached together with it."""

    container_id: str = msgspec.field(name="containerID")
    interface: str
    state: str
    node: str
    network: str = ""
    netns: str = ""
    pod_namespace: str = msgspec.field(name="podNamespace", default="")
    pod_name: str = msgspec.field(name="podName", default="")
    pod_uid: str = msgspec.field(name="podUID", default="")
    addresses: tuple[str, ...] = ()
    mac: str = ""
    parent: str = ""
    generation: int = 0
    trace_id: str = msgspec.field(name="traceID", default="")
    differences: tuple[str, ...] = ()
    network_status: tuple[NetworkStatus, ...] = ()


class StrayView(msgspec.Struct, frozen=True, kw_only=True):
    """An address (CIDR) on a link of the node's in the namespace at path `netns`, of no attachment there."""

    address: str
    interface: str
    netns: str


class AttachmentsPage(msgspec.Struct, frozen=True, kw_only=True, tag="query.attachments.page.1"):
    attachments: tuple[AttachmentView, ...]
    strays: tuple[StrayView, ...] = ()
    """Empty where they were not asked for."""


class QueryService(msgspec.Struct, frozen=True, kw_only=True, tag="query.service.1"):
    """How is this instance?"""


class ServiceView(msgspec.Struct, frozen=True, kw_only=True, tag="query.service.view.1"):
    """`facts` are short words for people and programs, such as leader, term, attachments, objects."""

    service: str
    instance: str
    pid: int
    ready: bool
    reason: str = ""
    facts: dict[str, str] = {}


IPAM_QUERY: Codec[IpamQuery] = Codec(IpamQuery)
IPAM_ANSWER: Codec[IpamAnswer] = Codec(IpamAnswer)
EXPLAIN: Codec[Explain] = Codec(Explain)
EXPLAINED: Codec[Explained] = Codec(Explained)
QUERY_ATTACHMENTS: Codec[QueryAttachments] = Codec(QueryAttachments)
ATTACHMENTS_PAGE: Codec[AttachmentsPage] = Codec(AttachmentsPage)
QUERY_SERVICE: Codec[QueryService] = Codec(QueryService)
SERVICE_VIEW: Codec[ServiceView] = Codec(ServiceView)
