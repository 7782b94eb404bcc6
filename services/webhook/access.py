"""What the webhook may do at the API server: its ServiceAccount and roles, and nothing more than keeper.py uses.

Owns the table. Pure: deploy/generate.py writes it.
"""

from __future__ import annotations

from services.webhook.configuration import NAME, NAMESPACE, SERVICE
from shared.manifests.meta import Json
from shared.settings import ClusterAdmissionSettings

_RBAC = "rbac.authorization.k8s.io"


def access(settings: ClusterAdmissionSettings) -> list[Json]:
    """The objects, in the order in which they are made."""
    secret = [
        # a name cannot be given for what is not there yet (Kubernetes, RBAC: "create requests cannot be restricted by name")
        _rule("", ["secrets"], ["create"]),
        _rule("", ["secrets"], ["get", "update"], [settings.secret]),
    ]
    kinds = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
    configurations = [
        _rule("admissionregistration.k8s.io", kinds, ["get", "update", "watch"], [settings.configuration])
    ]
    account: Json = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(SERVICE, settings.namespace),
    }
    return [
        account,
        *_granted("Role", _meta(SERVICE, settings.namespace), secret, settings.namespace),
        *_granted("ClusterRole", {"name": SERVICE}, configurations, settings.namespace),
    ]


def default_access() -> list[Json]:
    return access(ClusterAdmissionSettings(namespace=NAMESPACE, configuration=NAME))


def _granted(kind: str, meta: Json, rules: list[Json], namespace: str) -> list[Json]:
    role = {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": meta, "rules": rules}
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": meta["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE, "namespace": namespace}],
    }
    return [role, binding]


def _meta(name: str, namespace: str) -> Json:
    return {"name": name, "namespace": namespace}


def _rule(group: str, resources: list[str], verbs: list[str], names: list[str] | None = None) -> Json:
    rule: Json = {"apiGroups": [group], "resources": resources, "verbs": verbs}
    return {**rule, "resourceNames": names} if names else rule
