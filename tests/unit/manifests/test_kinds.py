"""Every kind by every name that kubectl takes."""

from __future__ import annotations

import msgspec
import pytest

from shared.manifests.kinds import API_VERSION, KINDS, kind_of, lookup
from shared.manifests.meta import Object
from shared.manifests.network import SpiderMultusConfig


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sp", "SpiderIPPool"),
        ("SpiderIPPools", "SpiderIPPool"),
        ("spiderippool", "SpiderIPPool"),
        ("spiderippools.spiderpool.spidernet.io", "SpiderIPPool"),
        ("ss", "SpiderSubnet"),
        ("sr", "SpiderReservedIP"),
        ("se", "SpiderEndpoint"),
        ("smc", "SpiderMultusConfig"),
        ("SCC", "SpiderCoordinator"),
        ("po", "Pod"),
        ("ns", "Namespace"),
        ("sts", "StatefulSet"),
        ("net-attach-def", "NetworkAttachmentDefinition"),
        ("network-attachment-definitions", "NetworkAttachmentDefinition"),
    ],
)
def test_lookup(name: str, kind: str) -> None:
    found = lookup(name)
    assert found is not None
    assert found.kind == kind


def test_what_is_no_kind() -> None:
    assert lookup("nothing") is None
    assert kind_of("example.org/v1", "Pod") is None
    assert kind_of("batch/v1beta1", "CronJob") is not None


def test_ours_and_their_scope() -> None:
    ours = {row.kind: row.namespaced for row in KINDS if row.ours}
    assert ours == {
        "SpiderIPPool": False,
        "SpiderSubnet": False,
        "SpiderReservedIP": False,
        "SpiderEndpoint": True,
        "SpiderMultusConfig": True,
        "SpiderCoordinator": False,
    }
    assert all(row.api_version == API_VERSION for row in KINDS if row.ours)


@pytest.mark.parametrize("row", [row for row in KINDS if row.type is not Object], ids=lambda row: row.kind)
def test_every_type_decodes_an_empty_object_and_encodes_it_empty(row: object) -> None:
    kind = getattr(row, "type")  # noqa: B009
    assert msgspec.to_builtins(msgspec.convert({}, kind)) == {}


def test_names_on_the_wire() -> None:
    """The spellings that no rule of camel case gives."""
    raw = {
        "spec": {
            "cniType": "vlan",
            "vlan": {"master": ["eth0"], "vlanID": 5, "mtu": 1400, "vlanMode": "manual"},
            "coordinator": {
                "podCIDRType": "auto",
                "hijackCIDR": [],
                "podMACPrefix": "",
                "vethMTU": 1500,
                "podRPFilter": 0,
            },
            "chainCNIJsonData": [],
            "customCNI": "",
            "disableIPAM": False,
        }
    }
    config = msgspec.convert(raw, SpiderMultusConfig)
    assert msgspec.json.decode(msgspec.json.encode(config)) == raw
