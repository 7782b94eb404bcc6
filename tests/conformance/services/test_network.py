"""Networks that admission refuses, and those that it takes."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import GROUP, Json, native, pod, pool, settings
from tests.conformance.services.conftest import SHOP
from tests.conformance.world import Refused, World

NAME, VERSION = "multus.spidernet.io/cr-name", "multus.spidernet.io/cni-version"
RDMA, NETWORK = "cni.spidernet.io/rdma-resource-inject", "cni.spidernet.io/network-resource-inject"
POOLS = {"ippools": {"ipv4": ["ours"]}}


def made(
    annotations: dict[str, str] | None = None,
    *,
    cni_type: str = "macvlan",
    name: str = "made",
    **spec: object,
) -> Json:
    """One parent in the block of its type unless `spec` brings a block; without coordinator."""
    blocks = {"macvlan", "ipvlan", "sriov", "ovs", "vlan", "ibsriov", "ipoib", "customCNI"}
    own: Json = {} if blocks & set(spec) else {cni_type: {"master": ["eth1"]}}
    return {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": SHOP, "annotations": annotations or {}},
        "spec": {"cniType": cni_type, "enableCoordinator": False} | own | spec,
    }


def block(**more: object) -> Json:
    return {"master": ["eth1"]} | more


def refused(*marks: str, text: str, network: Json) -> list[object]:
    return [pytest.param(network, text, marks=case(mark)) for mark in marks]


@pytest.mark.parametrize(
    ("network", "text"),
    [
        *refused("M00005", text="customCNI", network=made(cni_type="custom", customCNI="{not json")),
        *refused("M00013", text="cni-version", network=made({VERSION: "9.9.9"})),
        *refused("M00015", text="macvlan|ipvlan", network=made(cni_type="macvlan", ipvlan=block())),
        *refused("M00016", text="vlanID", network=made(macvlan=block(vlanID=-1))),
        *refused("M00016", text="vlanID", network=made(macvlan=block(vlanID=4095))),
        *refused("M00020", text="cr-name", network=made({NAME: ""})),
        *refused("M00020", text="cr-name", network=made({NAME: "a" * 254})),
        *refused("M00021", text="chainCNIJsonData", network=made(chainCNIJsonData=["{not json"])),
        *refused("M00021", text="chainCNIJsonData", network=made(chainCNIJsonData=['{"mtu": 1}'])),
        *refused("M00021", text="chainCNIJsonData", network=made(chainCNIJsonData=['[{"type": "tuning"}]'])),
        *refused(
            "M00023", text="podRPFilter", network=made(enableCoordinator=True, coordinator={"podRPFilter": 4})
        ),
        *refused(
            "M00024",
            text="podMACPrefix",
            network=made(enableCoordinator=True, coordinator={"podMACPrefix": "01:10"}),
        ),
        *refused("M00025", text="cr-name", network=made({NAME: "Not_DNS"})),
        *refused(
            "M00028", text="rdmaResourceName|resource", network=made({RDMA: "g"}, macvlan=block(**POOLS))
        ),
        *refused(
            "M00029",
            text="ippools",
            network=made({RDMA: "g"}, macvlan=block(enableRdma=True, rdmaResourceName="example.com/rdma")),
        ),
        *refused(
            "M00030", text="ovs", network=made({RDMA: "g"}, cni_type="ovs", ovs={"bridge": "br0"} | POOLS)
        ),
        *refused(
            "M00032",
            text="ippools",
            network=made({NETWORK: "g"}, cni_type="sriov", sriov={"resourceName": "example.com/vf"}),
        ),
        *refused("M00033", text="mtu", network=made(macvlan=block(mtu=-1))),
        *refused("M00034", text="mtu", network=made(cni_type="ipvlan", ipvlan=block(mtu=-1))),
        *refused(
            "M00035",
            text="mtu",
            network=made(cni_type="sriov", sriov={"resourceName": "example.com/vf", "mtu": -1}),
        ),
        *refused(
            "M00040",
            text="vlanID|vlanMode",
            network=made(cni_type="vlan", vlan=block(vlanMode="auto", vlanID=100)),
        ),
    ],
)
def test_refused(world: World, network: Json, text: str) -> None:
    with pytest.raises(Refused, match=text):
        world.review(network)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(made(chainCNIJsonData=['{"type": "tuning"}']), marks=case("M00021")),
        pytest.param(
            made(enableCoordinator=True, coordinator={"podMACPrefix": "9e:10"}), marks=case("M00024")
        ),
        pytest.param(
            made({RDMA: "g"}, macvlan=block(enableRdma=True, rdmaResourceName="example.com/rdma", **POOLS)),
            marks=case("M00027"),
        ),
        pytest.param(
            made({NETWORK: "g"}, cni_type="sriov", sriov={"resourceName": "example.com/vf"} | POOLS),
            marks=case("M00031"),
        ),
        pytest.param(made(cni_type="ipvlan", ipvlan=block(mtu=1400)), marks=case("M00034")),
        pytest.param(
            made(cni_type="sriov", sriov={"resourceName": "example.com/vf", "mtu": 1400}),
            marks=case("M00035"),
        ),
    ],
)
def test_taken(world: World, network: Json) -> None:
    world.review(network)


@case("M00011")
def test_names_that_clash(world: World) -> None:
    world.apply(made({NAME: "taken"}, name="first"), made(name="plain"))
    for clash in (
        made({NAME: "taken"}, name="second"),
        made({NAME: "plain"}, name="second"),
        made(name="taken"),
    ):
        with pytest.raises(Refused, match=r"taken|plain"):
            world.review(clash)


@case("M00033")
def test_an_mtu_is_on_the_interface(world: World) -> None:
    world.apply(
        pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]), made(macvlan=block(mtu=1400) | POOLS)
    )
    running = world.start(
        pod("web", SHOP, networks=f"{SHOP}/made"), configuration=native(ippools={"ipv4": ["ours"]})
    )
    assert running.mtu_bytes("net1") == 1400
    world.sane("ours")


@case("H00001")
def test_injection(world: World) -> None:
    resources = ("example.com/rdma-a", "example.com/rdma-b")
    world.apply(
        settings({"podResourceInject": {"enabled": True}}),
        pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]),
        *(
            made(
                {RDMA: "fabric"},
                name=f"rail-{number}",
                macvlan=block(enableRdma=True, rdmaResourceName=resource, **POOLS),
            )
            for number, resource in enumerate(resources)
        ),
    )
    wanted = pod("train", SHOP)
    wanted["metadata"]["annotations"][RDMA] = "fabric"
    stored = world.injected(wanted)
    assert stored["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == f"{SHOP}/rail-0,{SHOP}/rail-1"
    limits = stored["spec"]["containers"][0]["resources"]["limits"]
    assert {name: str(limits[name]) for name in resources} == dict.fromkeys(resources, "1")
