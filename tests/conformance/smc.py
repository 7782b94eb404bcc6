"""SpiderMultusConfigs, and the text that comes of them.

Owns their making and rendering. Must not know any case.
"""

from __future__ import annotations

import json
from typing import Any

from services.controller.nad import definition
from shared.manifests import shape
from shared.manifests.network import BLOCK_KEYS, SpiderMultusConfig
from shared.manifests.problem import Invalid
from tests.conformance.objects import GROUP, SHOP, Json
from tests.conformance.world import World

NAME, VERSION = "multus.spidernet.io/cr-name", "multus.spidernet.io/cni-version"
RDMA, NETWORK = "cni.spidernet.io/rdma-resource-inject", "cni.spidernet.io/network-resource-inject"
POOLS: Json = {"ippools": {"ipv4": ["ours"]}}
VF: Json = {"resourceName": "example.com/vf"}
BOND: Json = {"bond": {"name": "bond7", "mode": 1}}
_OWN: dict[str, Json] = {
    "sriov": VF,
    "ib-sriov": VF,
    "ipoib": {"master": "ib0"},
    "ovs": {"bridge": "br0"},
}


def made(
    cni_type: str = "macvlan",
    annotations: dict[str, str] | None = None,
    *,
    name: str = "made",
    **spec: Any,
) -> Json:
    """With what its type demands unless `spec` brings a block; without coordinator."""
    key = BLOCK_KEYS.get(cni_type, "customCNI")
    own: Json = (
        {}
        if {*BLOCK_KEYS.values(), "customCNI"} & set(spec) or cni_type == "custom"
        else {key: block(cni_type)}
    )
    return {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": SHOP, "annotations": annotations or {}},
        "spec": {"cniType": cni_type, "enableCoordinator": False} | own | spec,
    }


def block(cni_type: str = "macvlan", **more: Any) -> Json:
    return _OWN.get(cni_type, {"master": ["eth1"]}) | more


def of(cni_type: str, annotations: dict[str, str] | None = None, **members: Any) -> Json:
    """With these members in the block of its type."""
    own: dict[str, Any] = {BLOCK_KEYS[cni_type]: block(cni_type, **members)}
    return made(cni_type, annotations, **own)


def coordinated(**members: Any) -> Json:
    return made(enableCoordinator=True, coordinator=members)


def rendered(world: World, network: Json) -> Json:
    """The net-attach-def of the network as admission stores it."""
    stored = world.review(network)
    config = shape.decode(SpiderMultusConfig, stored)
    assert not isinstance(config, Invalid), config
    found = definition(config)
    assert found is not None
    return found


def plugins(world: World, network: Json) -> list[Json]:
    return json.loads(rendered(world, network)["spec"]["config"])["plugins"]
