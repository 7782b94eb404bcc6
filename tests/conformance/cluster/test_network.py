"""Networks: what admission says of them, the net-attach-def that comes of each, and injection into pods."""

from __future__ import annotations

import json

import pytest

from tests.conformance.case import case
from tests.conformance.cluster.stage import NADS, OURS, Json, Stage, drawing, present, until
from tests.conformance.networks import REFUSED, TAKEN
from tests.support.kube_client import ApiError
from tests.support.kube_workload import GROUP, NETWORKS, pod

NAME, VERSION = "multus.spidernet.io/cr-name", "multus.spidernet.io/cni-version"
RDMA, NETWORK = "cni.spidernet.io/rdma-resource-inject", "cni.spidernet.io/network-resource-inject"
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
POOLS = {"ippools": {"ipv4": ["rail-v4"], "ipv6": ["rail-v6"]}}
BOND = {"bond": {"name": "bond9", "mode": 4, "options": "miimon=100"}}


def made(
    cni_type: str = "macvlan",
    block: Json | None = None,
    annotations: dict[str, str] | None = None,
    *,
    name: str = "net",
    coordinator: bool = False,
    **spec: object,
) -> Json:
    """`block` is of the type, with a parent unless it names its own."""
    field = cni_type.replace("-", "")
    parents = {} if cni_type in ("sriov", "ib-sriov", "ovs") else {"master": ["ens7"]}
    own: Json = {} if cni_type == "custom" else {field: parents | (block or {})}
    return {
        "apiVersion": GROUP,
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"cniType": cni_type, "enableCoordinator": coordinator} | own | spec,
    }


def coordinated(**members: object) -> Json:
    network = made()
    network["spec"] |= {"enableCoordinator": True, "coordinator": members}
    return network


VF: Json = {"resourceName": "example.com/vf"}


@pytest.mark.parametrize(("network", "text"), REFUSED)
def test_refused(lasting: Stage, network: Json, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        dry(lasting, network)


@pytest.mark.parametrize(("network", "text"), TAKEN)
def test_taken(lasting: Stage, network: Json, text: str) -> None:
    assert dry(lasting, network)["metadata"]["name"] == network["metadata"]["name"], text


def dry(stage: Stage, network: Json) -> Json:
    """The object as the API server would store it: by schema, rules and webhook."""
    whole = network | {"metadata": network["metadata"] | {"namespace": stage.name}}
    path = f"{OURS}/namespaces/{stage.name}/spidermultusconfigs"
    return stage.client.request("POST", path, whole, query={"dryRun": "All", "fieldValidation": "Strict"})


@case("M00024")
def test_a_prefix_of_addresses(stage: Stage) -> None:
    for prefix in ("01:10", "ff:00", "9e"):
        assert "podMACPrefix" in stage.refused(coordinated(podMACPrefix=prefix)), prefix
    stage.space.apply(coordinated(podMACPrefix="9e:10"))
    assert stage.plugins("net")[1]["podMACPrefix"] == "9e:10"


@case("M00001")
@case("M00002")
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan"])
def test_a_plugin_and_the_coordinator(stage: Stage, cni_type: str) -> None:
    stage.space.apply(made(cni_type, POOLS, {"example.com/note": "kept"}, coordinator=True))
    definition = stage.await_definition("net")
    source = stage.client.get(f"{OURS}/namespaces/{stage.name}/spidermultusconfigs/net")
    (owner,) = definition["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
        *("SpiderMultusConfig", "net", source["metadata"]["uid"]),
        True,
    )
    assert definition["metadata"]["annotations"]["example.com/note"] == "kept"
    whole = json.loads(definition["spec"]["config"])
    assert (whole["cniVersion"], whole["name"]) == ("0.3.1", "net")
    main, coordinator = whole["plugins"]
    assert (main["type"], main["master"]) == (cni_type, "ens7")
    assert main.get("mode") == ("bridge" if cni_type == "macvlan" else None)
    assert main["ipam"] == {
        "type": "spiderpool",
        "default_ipv4_ippool": ["rail-v4"],
        "default_ipv6_ippool": ["rail-v6"],
    }
    assert (coordinator["type"], coordinator["mode"]) == ("coordinator", "auto")


@case("M00003")
def test_sriov(stage: Stage) -> None:
    stage.space.apply(made("sriov", VF | {"vlanID": 30, "minTxRateMbps": 5}))
    assert stage.await_definition("net")["metadata"]["annotations"][RESOURCE] == "example.com/vf"
    (main,) = stage.plugins("net")
    assert (main["type"], main["vlan"], main["min_tx_rate"]) == ("sriov", 30, 5)


@case("M00004")
def test_custom(stage: Stage) -> None:
    text = '{"cniVersion": "0.4.0", "name": "own",  "type": "bridge", "bridge": "br7"}'
    stage.space.apply(made("custom", customCNI=text))
    assert stage.await_definition("net")["spec"]["config"] == text
    assert (
        stage.client.get(f"{OURS}/namespaces/{stage.name}/spidermultusconfigs/net")["spec"]["cniType"]
        == "custom"
    )


@case("M00006")
@pytest.mark.parametrize("cni_type", ["macvlan", "ipvlan"])
def test_a_bond_with_a_vlan(stage: Stage, cni_type: str) -> None:
    stage.space.apply(made(cni_type, {"master": ["ens7", "ens8"], "vlanID": 321} | BOND))
    ifacer, main = stage.plugins("net")
    assert ifacer == {"type": "ifacer", "interfaces": ["ens7", "ens8"], "vlanID": 321} | BOND
    assert main["master"] == "bond9.321"


@case("M00007")
@case("M00008")
def test_a_definition_comes_back_and_ends_with_its_source(stage: Stage) -> None:
    stage.space.apply(made())
    path = f"{NADS}/namespaces/{stage.name}/network-attachment-definitions/net"
    first = stage.await_definition("net")["metadata"]["uid"]
    stage.client.delete(path)
    until(
        lambda: (found := stage.definition("net")) and found["metadata"]["uid"] != first,
        "it comes back",
        90,
    )
    stage.client.delete(f"{OURS}/namespaces/{stage.name}/spidermultusconfigs/net")
    until(lambda: stage.definition("net") is None, "it goes with its source", 90)


@case("M00009")
def test_a_second_parent_and_a_bond(stage: Stage) -> None:
    stage.space.apply(made())
    assert [one["type"] for one in stage.plugins("net")] == ["macvlan"]
    stage.space.apply(made(block={"master": ["ens7", "ens8"]} | BOND))
    assert [one["type"] for one in stage.plugins("net", contains="ifacer")] == ["ifacer", "macvlan"]
    assert stage.plugins("net", contains="ifacer")[1]["master"] == "bond9"


@case("M00010")
def test_a_name_of_its_own(stage: Stage) -> None:
    stage.space.apply(made(annotations={NAME: "rack.one"}))
    assert json.loads(stage.await_definition("rack.one")["spec"]["config"])["name"] == "rack.one"
    assert stage.definition("net") is None


@case("M00011")
def test_names_that_clash(stage: Stage) -> None:
    stage.space.apply(made(annotations={NAME: "one"}, name="first"), made(name="plain"))
    for known in ("one", "plain"):
        stage.await_definition(known)
    for clash in (
        made(annotations={NAME: "one"}, name="other"),
        made(annotations={NAME: "plain"}, name="other"),
        made(name="one"),
    ):
        assert "already exists and is managed by SpiderMultusConfig" in stage.refused(clash)


@case("M00012")
@pytest.mark.parametrize("version", ["0.3.0", "1.0.0"])
def test_a_version(stage: Stage, version: str) -> None:
    stage.space.apply(made(annotations={VERSION: version}))
    assert json.loads(stage.await_definition("net")["spec"]["config"])["cniVersion"] == version


@case("M00014")
def test_a_definition_of_nobody_is_taken_over(stage: Stage) -> None:
    by_hand = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "net"},
        "spec": {"config": '{"type": "bridge"}'},
    }
    stage.space.apply(by_hand)
    stage.space.apply(made())
    taken = stage.await_definition("net", contains="macvlan")
    assert taken["metadata"]["ownerReferences"][0]["name"] == "net"


@case("M00017")
def test_no_ipam(stage: Stage) -> None:
    stage.space.apply(made(block=POOLS, disableIPAM=True))
    assert "ipam" not in stage.plugins("net")[0]


@case("M00019")
def test_an_empty_spec(stage: Stage) -> None:
    stage.space.apply(made() | {"spec": {}})
    assert not stage.await_definition("net")["spec"].get("config")
    stored = stage.client.get(f"{OURS}/namespaces/{stage.name}/spidermultusconfigs/net")["spec"]
    assert (stored["cniType"], stored["enableCoordinator"]) == ("custom", False)


@case("M00021")
def test_a_chain(stage: Stage) -> None:
    stage.space.apply(made(chainCNIJsonData=['{"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}']))
    assert stage.plugins("net")[1] == {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}


@case("M00022")
@pytest.mark.parametrize("members", [{}, {"podRPFilter": 1}, {"podRPFilter": -1}, {"podRPFilter": 2}])
def test_filters(stage: Stage, members: Json) -> None:
    stage.space.apply(coordinated(**members))
    assert [one["type"] for one in stage.plugins("net")] == ["macvlan", "coordinator"]


@case("M00027")
@case("M00031")
@pytest.mark.parametrize(
    ("key", "network"),
    [
        (RDMA, made("ipvlan", {"rdmaResourceName": "example.com/r"} | POOLS)),
        (RDMA, made("sriov", VF | POOLS)),
        (NETWORK, made("sriov", VF | POOLS)),
        (NETWORK, made(block=POOLS)),
    ],
)
def test_injection_may_be_asked_for(lasting: Stage, key: str, network: Json) -> None:
    network = network | {"metadata": {"name": "net", "annotations": {key: "fabric"}}}
    assert lasting.taken(network)["metadata"]["annotations"][key] == "fabric"


@case("M00033")
def test_an_mtu_of_macvlan(stage: Stage) -> None:
    rail = stage.pool(name="rail")
    network = made(block={"master": ["eth1"], "mtu": 1300, "ippools": {"ipv4": [rail]}})
    stage.space.apply(network)
    assert stage.plugins("net")[0]["mtu"] == 1300
    stage.space.apply(pod("web", {NETWORKS: "net"} | drawing(stage.pool())))
    stage.space.await_pods(1)
    assert "mtu 1300" in stage.cluster.exec(stage.name, "web", "ip", "link", "show", "net1")


@case("M00034")
@case("M00035")
def test_an_mtu_of_others(stage: Stage) -> None:
    stage.space.apply(made("ipvlan", {"mtu": 1300}), made("sriov", VF | {"mtu": 1300}, name="vf"))
    assert stage.plugins("net")[0]["mtu"] == 1300
    assert stage.plugins("vf")[-1] == {"type": "tuning", "mtu": 1300}


@case("M00038")
@case("M00039")
def test_vlan(stage: Stage) -> None:
    stage.space.apply(made("vlan", {"vlanID": 77}), made("vlan", {"vlanMode": "auto"}, name="auto"))
    (manual,) = stage.plugins("net")
    assert (manual["type"], manual["vlanMode"], manual["vlanId"], manual["master"]) == (
        *("vlan", "manual"),
        77,
        "ens7",
    )
    (auto,) = stage.plugins("auto")
    assert auto["vlanMode"] == "auto"
    assert "vlanId" not in auto


@case("H00001")
def test_injection(stage: Stage) -> None:
    resources = {"rail-a": "example.com/rdma-a", "rail-b": "example.com/rdma-b"}
    for name, resource in resources.items():
        stage.space.apply(
            made(block={"rdmaResourceName": resource} | POOLS, annotations={RDMA: "fabric"}, name=name)
        )
    wanted = pod("train", {RDMA: "fabric"})
    stage.settings({"podResourceInject": {"enabled": True}})

    def injected() -> Json | None:
        stored = stage.taken(wanted)
        return stored if stored["metadata"]["annotations"].get(NETWORKS, "").count("rail") == 2 else None

    stored = present(until(injected, "both networks are known to the webhook"))
    assert stored["metadata"]["annotations"][NETWORKS] == f"{stage.name}/rail-a,{stage.name}/rail-b"
    limits = stored["spec"]["containers"][0]["resources"]["limits"]
    assert {name: limits[name] for name in resources.values()} == dict.fromkeys(resources.values(), "1")
