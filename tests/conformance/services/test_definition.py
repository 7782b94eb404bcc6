"""What a network becomes: the text of its net-attach-def, and the link of a pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.case import case
from tests.conformance.objects import SHOP, Json, native, network, pod, pool
from tests.conformance.smc import (
    BOND,
    NAME,
    POOLS,
    VERSION,
    VF,
    block,
    coordinated,
    made,
    of,
    plugins,
    rendered,
)
from tests.conformance.world import NotStarted, World

IPAM = {"type": "spiderpool", "default_ipv4_ippool": ["ours"]}
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
SYSCTL = {"net.ipv4.conf.all.arp_notify": "1", "net.core.somaxconn": "501"}


def types(found: list[Json]) -> list[str]:
    return [one["type"] for one in found]


@case("M00001")
@case("M00002")
@pytest.mark.parametrize("members", [{}, {"mtu": 1400}, {"master": ["ens9.7"]}, POOLS])
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan"])
def test_a_plugin_and_the_coordinator(world: World, cni_type: str, members: Json) -> None:
    found = rendered(world, of(cni_type, {"example.com/note": "kept"}, **members))
    (main,) = json.loads(found["spec"]["config"])["plugins"]
    expected: dict[str, Any] = {
        "type": cni_type,
        "master": members.get("master", ["eth1"])[0],
        "mtu": members.get("mtu", 0),
    }
    expected["ipam"] = IPAM if "ippools" in members else {"type": "spiderpool"}
    assert main == expected | ({"mode": "bridge"} if cni_type == "macvlan" else {})
    assert found["metadata"]["annotations"] == {"example.com/note": "kept"}
    whole = made(cni_type, enableCoordinator=True)
    del whole["spec"]["enableCoordinator"]
    main, coordinator = plugins(world, whole)
    assert (main["type"], coordinator) == (
        cni_type,
        {"txQueueLen": 0, "tunePodRoutes": True, "mode": "auto", "type": "coordinator"},
    )


@case("M00003")
@pytest.mark.parametrize(
    "members", [{}, {"vlanID": 30, "minTxRateMbps": 5, "maxTxRateMbps": 9}, {"rdmaIsolation": True}]
)
def test_sriov(world: World, members: Json) -> None:
    found = rendered(world, of("sriov", **members))
    assert found["metadata"]["annotations"][RESOURCE] == "example.com/vf"
    main, *rest = json.loads(found["spec"]["config"])["plugins"]
    assert main == {
        "vlan": members.get("vlanID", 0),
        "min_tx_rate": members.get("minTxRateMbps", 0),
        "max_tx_rate": members.get("maxTxRateMbps", 0),
        "type": "sriov",
        "ipam": {"type": "spiderpool"},
    }
    assert rest == ([{"type": "rdma"}] if members.get("rdmaIsolation") else [])


@case("M00004")
@case("M00019")
@pytest.mark.parametrize(
    "text",
    [
        '{"cniVersion": "0.4.0", "name": "own",  "type": "bridge"}',
        '{\n  "plugins": []\n}',
        '"a string"',
        "[]",
        "",
    ],
)
def test_custom(world: World, text: str) -> None:
    assert rendered(world, made("custom", customCNI=text))["spec"].get("config", "") == text
    assert rendered(world, made("custom") | {"spec": {}})["spec"] == {}


@case("M00006")
@case("M00009")
@pytest.mark.parametrize("vlan_id", [None, 0, 1, 4094])
@pytest.mark.parametrize("masters", [["ens1"], ["ens1", "ens2"], ["ens1", "ens2", "ens3"]])
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan", "vlan"])
def test_parents(world: World, cni_type: str, masters: list[str], vlan_id: int | None) -> None:
    members: Json = {"master": masters} | (BOND if len(masters) > 1 else {})
    members |= {} if vlan_id is None else {"vlanID": vlan_id}
    found = plugins(world, of(cni_type, **members))
    name = "bond7" if len(masters) > 1 else "ens1"
    tagged = bool(vlan_id) and cni_type != "vlan"
    assert found[-1]["master"] == (f"{name}.{vlan_id}" if tagged else name)
    expected: Json = {"type": "ifacer", "interfaces": masters} | ({"vlanID": vlan_id} if tagged else {})
    if len(masters) > 1:
        expected["bond"] = BOND["bond"] | {"options": ""}
    assert found[:-1] == ([expected] if tagged or len(masters) > 1 else [])


@case("M00010")
@case("M00012")
@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", None])
@pytest.mark.parametrize("name", ["rack.one", "n" * 253, None])
def test_name_and_version(world: World, name: str | None, version: str | None) -> None:
    marks = ({NAME: name} if name else {}) | ({VERSION: version} if version else {})
    found = rendered(world, made(annotations=marks))
    whole = json.loads(found["spec"]["config"])
    assert (found["metadata"]["name"], whole["name"], whole["cniVersion"]) == (
        *(name or "made", name or "made"),
        version or "0.3.1",
    )


@case("M00017")
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan", "vlan", "sriov", "ib-sriov", "ipoib", "ovs"])
def test_no_ipam(world: World, cni_type: str) -> None:
    assert "ipam" in plugins(world, of(cni_type, **POOLS))[0]
    off = of(cni_type, **POOLS)
    off["spec"]["disableIPAM"] = True
    assert "ipam" not in plugins(world, off)[0]


@case("M00021")
def test_a_chain(world: World) -> None:
    """In their order, between the main plugin and the coordinator, with sorted keys."""
    chain = ['{"type": "tuning", "sysctl": {"b": "2", "a": "1"}}', '{"type":"sbr"}']
    found = rendered(world, made(enableCoordinator=True, chainCNIJsonData=chain))["spec"]["config"]
    assert types(json.loads(found)["plugins"]) == ["macvlan", "tuning", "sbr", "coordinator"]
    assert '{"sysctl":{"a":"1","b":"2"},"type":"tuning"}' in found


@case("M00021")
@pytest.mark.parametrize("sysctl", [SYSCTL, {"net.ipv6.conf.all.forwarding": "1"}])
def test_a_chain_of_plugins_as_a_runtime_runs_it(world: World, sysctl: dict[str, str]) -> None:
    """The rendered text, run plugin by plugin: the main one of containernetworking with our addresses, then its tuning."""
    tuning = {"type": "tuning", "sysctl": sysctl}
    wanted = made(
        macvlan=block(**POOLS), chainCNIJsonData=[json.dumps(tuning)], annotations={VERSION: "1.0.0"}
    )
    # of a subnet of its own: an address that another's plugin had rests for some seconds, which is no case's to see
    world.apply(pool("ours", "172.20.77.0/24", ["172.20.77.10-172.20.77.19"]), wanted)
    configuration = json.loads(rendered(world, wanted)["spec"]["config"])
    running = world.start(pod("web", SHOP), configuration=configuration)
    (address,) = running.addresses["eth0"]
    assert address.startswith("172.20.77.1")
    assert {key: running.sysctl(key) for key in sysctl} == sysctl
    world.sane("ours")


@case("M00022")
@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({}, None),
        ({"podRPFilter": 0}, None),
        ({"podRPFilter": 1}, 1),
        ({"podRPFilter": 2, "hostRPFilter": 1}, 2),
        ({"podRPFilter": -1}, -1),
        ({"podRPFilter": 0, "podCIDRType": "auto"}, 0),
        ({"hostRPFilter": 0}, None),
    ],
)
def test_filters(world: World, members: Json, told: int | None) -> None:
    """The block's own wish is told; what nobody wrote leaves the SpiderCoordinator's."""
    main, coordinator = plugins(world, coordinated(**members))
    assert (main["type"], coordinator["type"]) == ("macvlan", "coordinator")
    assert coordinator.get("podRPFilter") == told
    assert "hostRPFilter" not in coordinator


@case("M00033")
@case("M00034")
@pytest.mark.parametrize("mtu", [0, 1, 1400, 9000])
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan", "vlan"])
def test_an_mtu_is_in_the_text(world: World, cni_type: str, mtu: int) -> None:
    assert plugins(world, of(cni_type, mtu=mtu))[0]["mtu"] == mtu
    assert plugins(world, of(cni_type))[0]["mtu"] == 0


@case("M00035")
@pytest.mark.parametrize("mtu", [0, 1, 1400, 9000])
def test_an_mtu_of_sriov_is_a_tuning_plugin_behind_all_others(world: World, mtu: int) -> None:
    whole = made("sriov", sriov=VF | {"mtu": mtu, "rdmaIsolation": True}, enableCoordinator=True)
    tuning = [{"type": "tuning", "mtu": mtu}] if mtu else []
    found = plugins(world, whole)
    assert types(found) == ["sriov", "rdma", "coordinator", *types(tuning)]
    assert found[3:] == tuning


@case("M00033")
@pytest.mark.parametrize("mtu", [68, 576, 1280, 1499, 1500, 0])
def test_an_mtu_is_on_the_interface(world: World, mtu: int) -> None:
    """That of the parent where none is given."""
    world.apply(
        pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]),
        of("macvlan", mtu=mtu, **POOLS),
        network("extra", ipv4=["ours"]),
    )
    running = world.start(
        pod("web", SHOP, networks=f"{SHOP}/made,kube-system/extra"),
        configuration=native(ippools={"ipv4": ["ours"]}),
    )
    assert [running.mtu_bytes(ifname) for ifname in ("eth0", "net1", "net2")] == [1500, mtu or 1500, 1500]
    world.sane("ours")


@case("M00033")
def test_an_mtu_above_that_of_the_parent(world: World) -> None:
    world.apply(pool("ours", "172.20.1.0/24", ["172.20.1.10-172.20.1.19"]), of("macvlan", mtu=9000, **POOLS))
    with pytest.raises(NotStarted, match="mtu 9000 of 'net1' is above 1500, that of its parent 'eth1'"):
        world.start(
            pod("web", SHOP, networks=f"{SHOP}/made"), configuration=native(ippools={"ipv4": ["ours"]})
        )


@case("M00038")
@case("M00039")
@pytest.mark.parametrize("mode", [None, "manual", "auto"])
@pytest.mark.parametrize("vlan_id", [None, 1, 100, 4094])
def test_vlan(world: World, mode: str | None, vlan_id: int | None) -> None:
    if mode == "auto" and vlan_id:
        vlan_id = None
    members = ({"vlanMode": mode} if mode else {}) | ({"vlanID": vlan_id} if vlan_id else {})
    (main,) = plugins(world, of("vlan", **members, mtu=1400, **POOLS))
    expected: Json = {"type": "vlan", "master": "eth1", "vlanMode": mode or "manual"}
    expected |= {} if mode == "auto" else {"vlanId": vlan_id or 0}
    assert main == expected | {"mtu": 1400, "ipam": IPAM}
