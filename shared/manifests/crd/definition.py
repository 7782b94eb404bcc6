"""The CustomResourceDefinitions of all our kinds, and that of NetworkAttachmentDefinition for clusters without Multus.

Owns names, scope, columns and subresources; the schemas come from the types and the rule modules. Pure: who writes them is
deploy/generate.py and `orbweaver crds`.
"""

from __future__ import annotations

import msgspec

from shared.manifests.crd.address_rule import ADDRESS_RULES
from shared.manifests.crd.link_rule import LINK_RULES
from shared.manifests.crd.schema import schema_of
from shared.manifests.kinds import BY_KIND, Kind
from shared.manifests.meta import Json

CATEGORY = "spiderpool"
RULES = {**ADDRESS_RULES, **LINK_RULES}


class Column(msgspec.Struct, frozen=True):
    """One additionalPrinterColumn; one of priority 10 is shown with `-o wide` only."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0

    def to_json(self) -> Json:
        out: Json = {"jsonPath": self.path, "name": self.name, "type": self.type}
        return {**out, "priority": self.priority} if self.priority else out


_VERSION = Column("VERSION", ".spec.ipVersion")
_RANGE_COLUMNS = (
    _VERSION,
    Column("SUBNET", ".spec.subnet"),
    Column("ALLOCATED-IP-COUNT", ".status.allocatedIPCount", "integer"),
    Column("TOTAL-IP-COUNT", ".status.totalIPCount", "integer"),
)
_FIRST_IP = ".status.current.ips[0]"


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    columns: tuple[Column, ...] = ()
    status: bool = False


_ROWS: dict[str, _Row] = {
    "SpiderIPPool": _Row(
        status=True,
        columns=(
            *_RANGE_COLUMNS,
            Column("DEFAULT", ".spec.default", "boolean"),
            Column("DISABLE", ".spec.disable", "boolean", 10),
            Column("NodeName", ".spec.nodeName", "string", 10),
            Column("MultusName", ".spec.multusName", "string", 10),
            Column(
                "APP-NAMESPACE",
                r".spec.podAffinity.matchLabels['ipam\.spidernet\.io/app-namespace']",
                "string",
                10,
            ),
        ),
    ),
    "SpiderSubnet": _Row(status=True, columns=_RANGE_COLUMNS),
    "SpiderReservedIP": _Row(columns=(_VERSION,)),
    "SpiderEndpoint": _Row(
        columns=(
            Column("INTERFACE", f"{_FIRST_IP}.interface"),
            Column("IPV4POOL", f"{_FIRST_IP}.ipv4Pool"),
            Column("IPV4", f"{_FIRST_IP}.ipv4"),
            Column("IPV6POOL", f"{_FIRST_IP}.ipv6Pool"),
            Column("IPV6", f"{_FIRST_IP}.ipv6"),
            Column("NODE", ".status.current.node"),
        )
    ),
    "SpiderMultusConfig": _Row(),
    "SpiderCoordinator": _Row(status=True),
}
"""SpiderEndpoint has a status and no status subresource: it is written with plain updates."""


def definitions() -> dict[str, Json]:
    """Name → definition, of our kinds."""
    found = [_definition(BY_KIND[kind], row, [CATEGORY]) for kind, row in _ROWS.items()]
    return {one["metadata"]["name"]: one for one in found}


def network_attachment_definition() -> Json:
    """That of the Network Plumbing Working Group, as Multus installs it."""
    return _definition(BY_KIND["NetworkAttachmentDefinition"], _Row(), [])


def _definition(kind: Kind, row: _Row, categories: list[str]) -> Json:
    names: Json = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular if categories else "network-attachment-definition",
        "shortNames": [kind.short] if categories else [kind.short, "net-attach-defs"],
    }
    if categories:
        names["categories"] = categories
    version: Json = {
        "name": kind.api_version.rpartition("/")[2],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema_of(kind.type, RULES)},
    }
    if row.columns:
        version["additionalPrinterColumns"] = [column.to_json() for column in row.columns]
    if row.status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }
