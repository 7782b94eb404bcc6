"""The webhook configurations of Kubernetes: who calls us, for what, what happens where nobody answers.

Owns both objects, the part of them that follows from the cluster's settings, and how the ones that stand there are brought to it.
Pure: deploy/generate.py writes the first form, reconcile.py keeps it true. The choices are explained in docs/admission.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from services.webhook.review import path_of
from shared.admission.pod import INJECTION_KEYS
from shared.admission.verdict import FINALIZER
from shared.manifests.annotation_key import OURS, STATUS_SUFFIX
from shared.manifests.kinds import BY_KIND, GROUP
from shared.manifests.meta import Json
from shared.manifests.networks import DEFAULT_NETWORK, NETWORKS
from shared.manifests.settings import CONFIG_MAP, Settings

NAME = "orbweaver"
SERVICE = "orbweaver-webhook"
NAMESPACE = "orbweaver-system"
ALWAYS_SPARED = ("kube-system",)
"""Namespaces whose pods are never judged nor changed, beside our own: a cluster must be able to start and to repair itself."""
OWN_S, PODS_S, INJECTION_S = 5, 2, 3
"""Time-outs. A change that takes addresses from a pool waits up to 3 s for the allocator; all else is answered from memory."""

_JUDGED = ("SpiderIPPool", "SpiderSubnet", "SpiderReservedIP", "SpiderMultusConfig", "SpiderCoordinator")
_PROTECTED = ("SpiderIPPool", "SpiderSubnet")
"""Kinds whose deletion is judged where the settings say so."""
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
_NAME_LABEL = "kubernetes.io/metadata.name"
PODS = f"pods.{GROUP}"
NAMESPACE_INJECTION = f"pods-of-namespaces.{GROUP}"
NETWORK_INJECTION = f"pods-with-networks.{GROUP}"


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How the API server finds us: by our Service, or by `url` where one is given (`https://host:port`)."""

    namespace: str = NAMESPACE
    service: str = SERVICE
    port: int = 443
    url: str = ""

    def client_config(self, path: str, ca_bundle: str) -> Json:
        found: Json = {"caBundle": ca_bundle} if ca_bundle else {}
        if self.url:
            return {"url": f"{self.url}{path}", **found}
        service = {"namespace": self.namespace, "name": self.service, "path": path, "port": self.port}
        return {"service": service, **found}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the configurations depend on. `ca_bundle` is base64 of PEM; `injecting` are the namespaces with an injection annotation."""

    own_namespace: str = NAMESPACE
    ca_bundle: str = ""
    settings: Settings = Settings()
    injecting: tuple[str, ...] = ()


def validating(reach: Reach, wish: Wish) -> Json:
    entries = [_own(reach, wish, "validate", kind) for kind in _JUDGED]
    entries += [
        _entry(
            reach, wish, "validate", "ConfigMap", f"configmap.{GROUP}", "Ignore", PODS_S, ["CREATE", "UPDATE"]
        )
        | _conditions(settings=f"object.metadata.name == '{CONFIG_MAP}'"),
        _entry(
            reach, wish, "validate", "Namespace", f"namespace.{GROUP}", "Ignore", PODS_S, ["CREATE", "UPDATE"]
        )
        | _conditions(annotated=_annotated("metadata")),
        _entry(reach, wish, "validate", "Pod", PODS, "Ignore", PODS_S, ["CREATE", "UPDATE"])
        | _conditions(annotated=_annotated("metadata"))
        | {"namespaceSelector": _not_in(_spared(wish))},
    ]
    for kind in _WORKLOADS:
        meta = "spec.jobTemplate.spec.template.metadata" if kind == "CronJob" else "spec.template.metadata"
        entries.append(
            _entry(
                reach,
                wish,
                "validate",
                kind,
                f"{kind.lower()}.{GROUP}",
                "Ignore",
                PODS_S,
                ["CREATE", "UPDATE"],
            )
            | _conditions(
                # annotations of pods that stand beside the template have no effect: somebody must say so
                annotated=f"{_annotated(meta)} || {_annotated('metadata')}",
                unowned="!has(object.metadata.ownerReferences)",
            )
            | {"namespaceSelector": _not_in(_spared(wish))}
        )
    return _configuration("ValidatingWebhookConfiguration", entries)


def mutating(reach: Reach, wish: Wish) -> Json:
    entries = [_own(reach, wish, "mutate", kind) for kind in _JUDGED]
    asked = _has_any("object.metadata", INJECTION_KEYS)
    entries.append(
        _injection(reach, wish, PODS) | _conditions(asked=asked) | {"namespaceSelector": _injected(wish)}
    )
    settings = wish.settings
    if settings.pod_resource_inject.enabled and wish.injecting:
        selector = _injected(wish)
        named = {"key": _NAME_LABEL, "operator": "In", "values": sorted(wish.injecting)}
        entries.append(
            _injection(reach, wish, NAMESPACE_INJECTION)
            | _conditions(unasked=f"!({asked})")
            | {"namespaceSelector": {"matchExpressions": [*selector["matchExpressions"], named]}}
        )
    if settings.pod_resource_inject.enabled and settings.agent.network_resource_plugin.enabled:
        entries.append(
            _injection(reach, wish, NETWORK_INJECTION)
            | _conditions(
                networked=_has_any("object.metadata", (NETWORKS, DEFAULT_NETWORK)), unasked=f"!({asked})"
            )
            | {"namespaceSelector": _injected(wish)}
        )
    return _configuration("MutatingWebhookConfiguration", entries)


def reconciled(current: Json, wanted: Json) -> Json | None:
    """`current` with what follows from the settings, None if it is so already. What a person changed beside that stays: failure
    policies, time-outs, an entry taken out. Entries that come and go with the settings come and go."""
    entries = cast("list[Json]", current.get("webhooks") or [])
    wish = {cast("str", one["name"]): one for one in cast("list[Json]", wanted["webhooks"])}
    kept = [
        _brought(entry, wish[entry["name"]]) if entry["name"] in wish else entry
        for entry in entries
        if entry["name"] in wish or entry["name"] not in (NAMESPACE_INJECTION, NETWORK_INJECTION)
    ]
    present = {entry["name"] for entry in entries}
    reach = next((entry["clientConfig"] for entry in entries if entry["name"] == PODS), None)
    for name in (NAMESPACE_INJECTION, NETWORK_INJECTION):
        if name in wish and name not in present and reach is not None:
            kept.append({**wish[name], "clientConfig": _with_ca(reach, wish[name])})
    return None if kept == entries else {**current, "webhooks": kept}


def _brought(entry: Json, wish: Json) -> Json:
    if wish["name"] in (NAMESPACE_INJECTION, NETWORK_INJECTION):
        ours = {key: value for key, value in wish.items() if key != "clientConfig"}
        return {**entry, **ours, "clientConfig": _with_ca(entry["clientConfig"], wish)}
    out = {**entry, "clientConfig": _with_ca(entry["clientConfig"], wish)}
    if "namespaceSelector" in wish:
        out["namespaceSelector"] = wish["namespaceSelector"]
    operations = wish["rules"][0]["operations"]
    out["rules"] = [{**rule, "operations": operations} for rule in entry["rules"]]
    return out


def _with_ca(client_config: Json, wish: Json) -> Json:
    """Without a bundle of ours somebody else cares for it (cert-manager)."""
    bundle = wish["clientConfig"].get("caBundle")
    return {**client_config, "caBundle": bundle} if bundle else client_config


def _configuration(kind: str, entries: list[Json]) -> Json:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": NAME},
        "webhooks": entries,
    }


def _own(reach: Reach, wish: Wish, verb: Any, kind: str) -> Json:
    operations = ["CREATE", "UPDATE"]
    protected = wish.settings.enable_validating_resources_deleted_webhook
    if verb == "validate" and protected and kind in _PROTECTED:
        operations.append("DELETE")
    entry = _entry(reach, wish, verb, kind, f"{kind.lower()}.{GROUP}", "Fail", OWN_S, operations)
    leaving = (
        "request.operation != 'UPDATE' || !has(object.metadata.deletionTimestamp) || "
        f"(has(object.metadata.finalizers) && '{FINALIZER}' in object.metadata.finalizers)"
    )
    return entry | _conditions(staying=leaving)


def _injection(reach: Reach, wish: Wish, name: str) -> Json:
    return _entry(reach, wish, "mutate", "Pod", name, "Fail", INJECTION_S, ["CREATE"])


def _entry(
    reach: Reach,
    wish: Wish,
    verb: Any,
    kind: str,
    name: str,
    failure: str,
    timeout_s: int,
    operations: list[str],
) -> Json:
    row = BY_KIND[kind]
    group, _, version = row.api_version.rpartition("/")
    out: Json = {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": reach.client_config(path_of(verb, kind), wish.ca_bundle),
        "failurePolicy": failure,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": timeout_s,
        "rules": [
            {
                "apiGroups": [group],
                "apiVersions": [version],
                "operations": operations,
                "resources": [row.plural],
                "scope": "Namespaced" if row.namespaced else "Cluster",
            }
        ],
    }
    return out if verb == "validate" else out | {"reinvocationPolicy": "Never"}


def _conditions(**expressions: str) -> Json:
    return {"matchConditions": [{"name": name, "expression": text} for name, text in expressions.items()]}


def _list(keys: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{key}'" for key in keys) + "]"


def _has_any(meta: str, keys: Iterable[str]) -> str:
    return f"has({meta}.annotations) && {_list(keys)}.exists(k, k in {meta}.annotations)"


def _annotated(meta: str) -> str:
    """An annotation whose name is meant for us, misspelt or not, that came or changed: others change objects for reasons of their own.

    One condition for both, since each name's cost counts (an object has up to 256 KiB of annotations)."""
    now, before = f"object.{meta}.annotations", f"oldObject.{meta}.annotations"
    ours = f"k.matches('(?i){OURS}') && !k.endsWith('{STATUS_SUFFIX}')"
    came = f"request.operation == 'CREATE' || !has(oldObject.{meta}) || !has({before}) || !(k in {before})"
    return f"(has(object.{meta}) && has({now}) && {now}.exists(k, {ours} && ({came} || {now}[k] != {before}[k])))"


def _spared(wish: Wish) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*ALWAYS_SPARED, wish.own_namespace)))


def _not_in(namespaces: Iterable[str]) -> Json:
    return {
        "matchExpressions": [
            {"key": _NAME_LABEL, "operator": "NotIn", "values": list(dict.fromkeys(namespaces))}
        ]
    }


def _injected(wish: Wish) -> Json:
    """The namespaces whose pods may be changed."""
    inject = wish.settings.pod_resource_inject
    selector = _not_in((*_spared(wish), *inject.namespaces_exclude))
    if inject.namespaces_include:
        included = {"key": _NAME_LABEL, "operator": "In", "values": list(inject.namespaces_include)}
        selector["matchExpressions"].append(included)
    return selector
