"""Short ways to write objects and to ask admission about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.admission.rules import mutate, validate
from shared.admission.verdict import Verdict
from shared.admission.view import Objects

V2BETA1 = "spiderpool.spidernet.io/v2beta1"
Json = dict[str, Any]


def ours(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> Json:
    return {"apiVersion": V2BETA1, "kind": kind, "metadata": {"name": name, **metadata}, "spec": dict(spec)}


def pool(name: str = "a", subnet: str = "10.6.0.0/16", **spec: Any) -> Json:
    return ours("SpiderIPPool", name, {"subnet": subnet, **spec})


def subnet(name: str = "s", cidr: str = "10.6.0.0/16", **spec: Any) -> Json:
    return ours("SpiderSubnet", name, {"subnet": cidr, **spec})


def reserved(name: str = "r", **spec: Any) -> Json:
    return ours("SpiderReservedIP", name, spec)


def multus(name: str = "m", *, annotations: Mapping[str, str] | None = None, **spec: Any) -> Json:
    return ours("SpiderMultusConfig", name, spec, namespace="x", annotations=dict(annotations or {}))


def coordinator(**spec: Any) -> Json:
    return ours("SpiderCoordinator", "default", {"podCIDRType": "auto", **spec})


def pod(name: str = "p", *, owner: bool = True, **annotations: str) -> Json:
    owners = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": True}]
    meta: Json = {
        "name": name,
        "namespace": "x",
        "annotations": {k.replace("__", "/"): v for k, v in annotations.items()},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**meta, "ownerReferences": owners if owner else []},
    }


def conf(text: str) -> Json:
    meta = {"name": "spiderpool-conf", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"conf.yml": text}}


def having(*objects: Json, leases: Mapping[str, Mapping[str, str]] | None = None) -> Objects:
    """A store in which the objects were admitted in this order, without being judged."""
    store = Objects(leases=leases)
    for raw in objects:
        store.put(mutate(raw, store))
    return store


def create(raw: Json, *others: Json) -> Verdict:
    """Creates over those that are stored."""
    view = having(*others)
    return validate("CREATE", mutate(raw, view), None, view)


def update(
    old: Json, raw: Json, *others: Json, leases: Mapping[str, Mapping[str, str]] | None = None
) -> Verdict:
    view = having(*others, old, leases=leases)
    before = mutate(old, view)
    after = mutate(raw, view)
    if "status" in before:
        after = {**after, "status": before["status"]}
    return validate("UPDATE", after, before, view)


def delete(old: Json, *others: Json, leases: Mapping[str, Mapping[str, str]] | None = None) -> Verdict:
    return validate("DELETE", None, old, having(*others, old, leases=leases))


def fields(verdict: Verdict) -> list[str]:
    return [error.field for error in verdict.errors]


def said(verdict: Verdict) -> str:
    return "\n".join(error.message for error in verdict.errors)
