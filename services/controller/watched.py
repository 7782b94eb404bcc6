"""The kinds of the Kubernetes API that we hold, and what of each object is kept.

Owns the table: where a kind is listed, whether it becomes facts, and its reduction from the server's JSON to the members that
somebody reads. Must not know how it is fetched. Pure.

What is left out never makes a new fact: heartbeats of nodes, status that we write ourselves, the bookkeeping of field managers.
Pods are decoded straight from the server's bytes into a few Structs, since there are many.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, cast

import msgspec

from services.controller.reflector import Item, Name, Page
from shared.contracts import mark
from shared.contracts.facts import POD_ANNOTATIONS_READ
from shared.manifests.annotation_key import is_ours
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json, Part
from shared.manifests.settings import CONFIG_MAP
from shared.manifests.workload import Pod

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NETWORK_STATUS = ("k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status")
"""What Multus writes back: nobody reads it here, and it would be most of the bytes."""
_META = (
    "name",
    "namespace",
    "uid",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)

Reduce = Callable[[bytes], bytes | None]
"""The server's JSON of one object, to ours; None where nobody needs the object at all."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One list and its watch. `collection` is the path; `only` the one object of it that is held; `facts`: its objects are told on the bus;
    `optional`: the server need not serve the kind."""

    key: str
    kind: str
    api_version: str
    collection: str
    reduce: Reduce
    only: Name | None = None
    facts: bool = True
    optional: bool = False

    @property
    def query(self) -> dict[str, str]:
        """What every list and watch of it asks for."""
        return {"fieldSelector": f"metadata.name={self.only[1]}"} if self.only is not None else {}

    def holds(self, name: Name) -> bool:
        return self.only is None or self.only == name

    def path_of(self, name: Name) -> str:
        """Of one object."""
        namespace, own = name
        if not namespace or "/namespaces/" in self.collection:
            return f"{self.collection}/{own}"
        prefix, _, plural = self.collection.rpartition("/")
        return f"{prefix}/namespaces/{namespace}/{plural}/{own}"


class _Head(Part, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"


class _Headed(Part, frozen=True, kw_only=True):
    metadata: _Head = _Head()


class _ListMeta(Part, frozen=True, kw_only=True):
    resource_version: str = ""
    continued: str = msgspec.field(default="", name="continue")


class _List(Part, frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] = ()


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR. `item` is None where nobody needs the object; `code` is ERROR's."""

    type: str
    name: Name = ("", "")
    uid: str = ""
    resource_version: str = ""
    item: Item | None = None
    code: int = 0


class _Event(Part, frozen=True, kw_only=True):
    type: str
    object: msgspec.Raw


class _Status(Part, frozen=True, kw_only=True):
    code: int = 0


_HEADED = msgspec.json.Decoder(_Headed)
_LIST = msgspec.json.Decoder(_List)
_EVENT = msgspec.json.Decoder(_Event)
_STATUS = msgspec.json.Decoder(_Status)
_POD = msgspec.json.Decoder(Pod)


def page_of(watched: Watched, body: bytes) -> Page:
    """A list's answer. Raises msgspec.MsgspecError for what is none; an object that is none is left out."""
    answer = _LIST.decode(body)
    items = [found for raw in answer.items if (found := item_of(watched, bytes(raw))) is not None]
    return Page(
        items=items,
        resource_version=answer.metadata.resource_version,
        continued=answer.metadata.continued,
    )


def raw_items(body: bytes) -> tuple[list[bytes], str]:
    """A list's answer as the server's JSON of each object, and the token of the next page. Raises msgspec.MsgspecError."""
    answer = _LIST.decode(body)
    return [bytes(raw) for raw in answer.items], answer.metadata.continued


def notice_of(watched: Watched, line: bytes) -> Notice:
    """A line of a watch. Raises msgspec.MsgspecError for what is none."""
    event = _EVENT.decode(line)
    raw = bytes(event.object)
    if event.type == "ERROR":
        return Notice(type=event.type, code=_STATUS.decode(raw).code)
    head = _HEADED.decode(raw).metadata
    item = None
    if event.type in ("ADDED", "MODIFIED"):
        found = item_of(watched, raw)
        item = found[1] if found is not None else None
    return Notice(
        type=event.type,
        name=(head.namespace, head.name),
        uid=head.uid,
        resource_version=head.resource_version,
        item=item,
    )


def item_of(watched: Watched, raw: bytes) -> tuple[Name, Item] | None:
    """One object, None where nobody needs it or it is none that we can read."""
    try:
        head = _HEADED.decode(raw).metadata
        body = watched.reduce(raw)
        version = int(head.resource_version)
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None
    if body is None:
        return None
    return (head.namespace, head.name), Item(head.uid, version, body)


def _pod(raw: bytes) -> bytes | None:
    pod = _POD.decode(raw)
    meta = pod.metadata
    owner = meta.controller
    if pod.spec.host_network and (owner is None or owner.kind != "StatefulSet"):
        # It gets no address, and no runtime calls us for it. One of a StatefulSet tells that what its forerunner had waits for nobody.
        return None
    kept = {
        key: text
        for key, text in meta.annotations.items()
        # a misspelt name of ours is told to whoever asks why it has no effect
        if (key.startswith(POD_ANNOTATIONS_READ) or is_ours(key)) and key not in _NETWORK_STATUS
    }
    spec = msgspec.structs.replace(pod.spec, containers=(), init_containers=())
    status = pod.status
    if status.phase not in ("Succeeded", "Failed"):
        status = msgspec.structs.replace(status, container_statuses=())
    reduced = msgspec.structs.replace(
        pod,
        api_version="v1",
        kind="Pod",
        metadata=msgspec.structs.replace(meta, annotations=kept, resource_version="", generation=0),
        spec=spec,
        status=status,
    )
    return msgspec.json.encode(reduced)


def _members(raw: bytes) -> tuple[Json, Json]:
    """All members, and the metadata that is kept."""
    whole = cast("Json", msgspec.json.decode(raw))
    meta = cast("Json", whole.get("metadata") or {})
    kept = {key: meta[key] for key in _META if meta.get(key) is not None}
    notes = cast("Json", kept.get("annotations") or {})
    if LAST_APPLIED in notes:
        kept["annotations"] = {key: text for key, text in notes.items() if key != LAST_APPLIED}
    return whole, kept


def _keeping(kind: str, api_version: str, *members: str, copied: bool = False) -> Reduce:
    """An object with its metadata and these members, as they are. `copied`: every annotation counts, since they are copied."""

    def reduce(raw: bytes) -> bytes:
        whole, meta = _members(raw)
        if copied and (notes := cast("Json", whole["metadata"]).get("annotations")):
            meta["annotations"] = notes
        kept = {key: whole[key] for key in members if whole.get(key) is not None}
        return msgspec.json.encode({"apiVersion": api_version, "kind": kind, "metadata": meta, **kept})

    return reduce


def _pool(raw: bytes) -> bytes:
    """The status is ours, and most of it would make a fact of every lease; that the pool is full, admission warns of."""
    whole, meta = _members(raw)
    status = cast("Json", whole.get("status") or {})
    counts = {key: status[key] for key in ("allocatedIPCount", "totalIPCount") if key in status}
    full = len(counts) == 2 and counts["totalIPCount"] <= counts["allocatedIPCount"]
    kept = {"spec": whole.get("spec") or {}, **({"status": counts} if full else {})}
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": "SpiderIPPool", "metadata": meta, **kept})


def _node(raw: bytes) -> bytes:
    whole, meta = _members(raw)
    meta.pop("annotations", None)
    spec, status = cast("Json", whole.get("spec") or {}), cast("Json", whole.get("status") or {})
    conditions = [
        {key: one[key] for key in ("type", "status", "reason") if key in one}
        for one in cast("list[Json]", status.get("conditions") or [])
    ]
    kept: Json = {key: spec[key] for key in ("taints", "unschedulable") if spec.get(key)}
    for taint in cast("list[Json]", kept.get("taints") or []):
        taint.pop("timeAdded", None)
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": meta,
            "spec": kept,
            "status": {"conditions": conditions},
        }
    )


def _stateful_set(raw: bytes) -> bytes:
    whole, meta = _members(raw)
    spec = cast("Json", whole.get("spec") or {})
    kept = {key: spec[key] for key in ("replicas", "ordinals", "selector") if spec.get(key) is not None}
    meta.pop("annotations", None)
    return msgspec.json.encode(
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": kept}
    )


class EndpointNote(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is remembered of a SpiderEndpoint: `digest` of what it says, whose it is, and what its deletion needs."""

    digest: str
    pod_uid: str = ""
    finalizers: bool = False
    terminating: bool = False


def _endpoint(raw: bytes) -> bytes:
    whole = cast("Json", msgspec.json.decode(raw))
    meta = cast("Json", whole["metadata"])
    status = cast("Json", whole.get("status") or {})
    note = EndpointNote(
        digest=digest_of(status),
        pod_uid=str(cast("Json", status.get("current") or {}).get("uid", "")),
        finalizers=bool(meta.get("finalizers")),
        terminating=bool(meta.get("deletionTimestamp")),
    )
    return msgspec.json.encode(note)


def digest_of(status: object) -> str:
    """Of a status as JSON: the same for one that is to be written and for the object once it is there."""
    return blake2b(msgspec.json.encode(status, order="sorted"), digest_size=12).hexdigest()


def _ours(plural: str) -> str:
    return f"/apis/{API_VERSION}/{plural}"


def _row(
    kind: str, api_version: str, collection: str, *members: str, copied: bool = False, **more: Any
) -> Watched:
    return Watched(
        key=more.pop("key", kind),
        kind=kind,
        api_version=api_version,
        collection=collection,
        reduce=_keeping(kind, api_version, *members, copied=copied),
        **more,
    )


def _config_map(namespace: str, name: str, *, facts: bool) -> Watched:
    return _row(
        "ConfigMap",
        "v1",
        f"/api/v1/namespaces/{namespace}/configmaps",
        "data",
        key=f"ConfigMap/{namespace}/{name}",
        only=(namespace, name),
        facts=facts,
    )


ENDPOINTS = "SpiderEndpoint"
CALICO_POOLS = "IPPool"
CILIUM_POOLS = "CiliumPodIPPool"
SERVICE_CIDRS = "ServiceCIDR"
SERVICE_CIDRS_BETA = "ServiceCIDR/v1beta1"
"""Looked at where the server does not serve v1 yet."""
KUBEADM_CONFIG = ("kube-system", "kubeadm-config")


def table(installation_namespace: str, cilium_config: Name) -> tuple[Watched, ...]:
    """Every list that is held. `cilium_config` names the ConfigMap of Cilium."""
    configs = {
        (installation_namespace, CONFIG_MAP): True,
        (installation_namespace, mark.CONFIG_MAP): True,
        KUBEADM_CONFIG: False,
        cilium_config: False,
    }
    return (
        Watched(
            key="SpiderIPPool",
            kind="SpiderIPPool",
            api_version=API_VERSION,
            collection=_ours("spiderippools"),
            reduce=_pool,
        ),
        _row("SpiderSubnet", API_VERSION, _ours("spidersubnets"), "spec"),
        _row("SpiderReservedIP", API_VERSION, _ours("spiderreservedips"), "spec"),
        _row("SpiderMultusConfig", API_VERSION, _ours("spidermultusconfigs"), "spec", copied=True),
        _row("SpiderCoordinator", API_VERSION, _ours("spidercoordinators"), "spec", "status"),
        Watched(
            key=ENDPOINTS,
            kind=ENDPOINTS,
            api_version=API_VERSION,
            collection=_ours("spiderendpoints"),
            reduce=_endpoint,
            facts=False,
        ),
        _row("Namespace", "v1", "/api/v1/namespaces"),
        Watched(kind="Node", key="Node", api_version="v1", collection="/api/v1/nodes", reduce=_node),
        Watched(
            key="StatefulSet",
            kind="StatefulSet",
            api_version="apps/v1",
            collection="/apis/apps/v1/statefulsets",
            reduce=_stateful_set,
        ),
        Watched(kind="Pod", key="Pod", api_version="v1", collection="/api/v1/pods", reduce=_pod),
        _row(
            "NetworkAttachmentDefinition",
            "k8s.cni.cncf.io/v1",
            "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions",
            "spec",
            copied=True,
            optional=True,
        ),
        _row(
            SERVICE_CIDRS,
            "networking.k8s.io/v1",
            "/apis/networking.k8s.io/v1/servicecidrs",
            "spec",
            facts=False,
            optional=True,
        ),
        _row(
            SERVICE_CIDRS,
            "networking.k8s.io/v1beta1",
            "/apis/networking.k8s.io/v1beta1/servicecidrs",
            "spec",
            key=SERVICE_CIDRS_BETA,
            facts=False,
            optional=True,
        ),
        _row(
            CALICO_POOLS,
            "crd.projectcalico.org/v1",
            "/apis/crd.projectcalico.org/v1/ippools",
            "spec",
            facts=False,
            optional=True,
        ),
        _row(
            CILIUM_POOLS,
            "cilium.io/v2alpha1",
            "/apis/cilium.io/v2alpha1/ciliumpodippools",
            "spec",
            facts=False,
            optional=True,
        ),
        *(_config_map(*name, facts=facts) for name, facts in configs.items()),
    )
