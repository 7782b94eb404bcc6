"""All networks of a pod in one ADD, and one ADD for each as Multus calls us: the same pod in the end, over the real system."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.standalone import demo_netns
from services.standalone.demo_netns import LabError
from services.standalone.demo_system import System
from tests.runtime.conftest import Runtime, Sandbox, error_of, native

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
IPPOOLS = "ipam.spidernet.io/ippools"
DEFAULT_ROUTE_NIC = "ipam.spidernet.io/default-route-nic"
ROUTES = "ipam.spidernet.io/routes"
MOST = 9
"""Interfaces of the largest pod: eth0 and eight networks."""
RENAMED = 3
_MACVLAN = Path("/usr/lib/cni/macvlan")
WHOLE = native(multiNetwork="native")

_NETWORK = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {{name: net{n}-v4}}
spec: {{ipVersion: 4, subnet: 172.28.{n}.0/24, gateway: 172.28.{n}.1, ips: [172.28.{n}.2-172.28.{n}.9]{routes}}}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {{name: net{n}-v6}}
spec: {{ipVersion: 6, subnet: "fd00:28:{n}::/64", gateway: "fd00:28:{n}::1", ips: ["fd00:28:{n}::2-fd00:28:{n}::9"]}}
---
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {{name: {name}, namespace: kube-system, annotations: {{{renamed}}}}}
spec:
  cniType: macvlan
  macvlan: {{master: [eth1], mtu: {mtu}, ippools: {{ipv4: [net{n}-v4], ipv6: [net{n}-v6]}}}}
  enableCoordinator: false
---
"""
_TINY = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {name: tiny, namespace: kube-system}
spec: {cniType: macvlan, macvlan: {master: [eth1], ippools: {ipv4: [tiny]}}, enableCoordinator: false}
"""


def name_of(number: int) -> str:
    """As pods name the network."""
    return "third" if number == RENAMED else f"net-{number}"


def _network(number: int) -> str:
    is_renamed = number == RENAMED
    return _NETWORK.format(
        n=number,
        name=f"net-{number}",
        renamed="multus.spidernet.io/cr-name: third" if is_renamed else "",
        mtu=1400 if number == 2 else 0,
        routes=", routes: [{dst: 172.29.0.0/16, gw: 172.28.2.7}]" if number == 2 else "",
    )


def in_force(system: System) -> None:
    """Returns when the folder as of now is; other tests' garbage in it, of which `sync` complains, is not ours."""
    try:
        system.sync()
    except LabError as failure:
        assert str(failure).count(".yaml:") == str(failure).count("garbage.yaml:") == 1, failure


@pytest.fixture(scope="module")
def networks(system: System) -> Iterator[None]:
    file = system.manifests / "networks.yaml"
    file.write_text("".join(map(_network, range(1, MOST))) + _TINY)
    in_force(system)
    yield
    file.unlink()
    in_force(system)


Pod = Callable[..., dict[str, str]]


@pytest.fixture
def pod(system: System, node: Runtime, networks: None) -> Iterator[Pod]:
    """`pod(annotations)` makes the object and returns the arguments of its sandbox's calls. After the test it is gone."""
    files = []

    def make(annotations: dict[str, Any], name: str = "many") -> dict[str, str]:
        texts = {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in annotations.items()
        }
        file = system.manifests / f"pod-{name}.yaml"
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "uid": f"{name}-uid", "annotations": texts},
            "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "example.com/main:1"}]},
        }
        file.write_text(json.dumps(manifest))
        files.append(file)
        in_force(system)
        return {
            "K8S_POD_NAMESPACE": "shop",
            "K8S_POD_NAME": name,
            "K8S_POD_UID": f"{name}-uid",
            "IgnoreUnknown": "1",
        }

    yield make
    for file in files:
        file.unlink(missing_ok=True)
    in_force(system)


def listed(count: int) -> str:
    """So many networks as the comma list; every other with an interface of its own name."""
    return ",".join(
        f"kube-system/{name_of(n)}" + (f"@data{n}" if n % 2 == 0 else "") for n in range(1, count + 1)
    )


def as_json(count: int) -> str:
    return json.dumps(
        [
            {"name": name_of(n), "namespace": "kube-system"}
            | ({"interface": f"data{n}"} if n % 2 == 0 else {})
            for n in range(1, count + 1)
        ]
    )


def ifnames(count: int) -> list[str]:
    return ["eth0", *(f"data{n}" if n % 2 == 0 else f"net{n}" for n in range(1, count + 1))]


def seen(sandbox: Sandbox) -> dict[str, Any]:
    """Links, addresses and routes as the kernel has them, without what is by chance: indexes, MACs, link-local addresses."""
    with demo_netns.entered(sandbox.netns):
        links = json.loads(demo_netns.run("ip", "-j", "-d", "addr", "show"))
        routes = [
            route
            for family in ("-4", "-6")
            for route in json.loads(demo_netns.run("ip", "-j", family, "route", "show") or "[]")
        ]
    return {
        "links": {
            link["ifname"]: (
                link["mtu"],
                sorted(set(link["flags"]) & {"UP", "LOWER_UP"}),
                link.get("linkinfo", {}).get("info_kind"),
                link.get("linkinfo", {}).get("info_data", {}).get("mode"),
                sorted(f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"),
            )
            for link in links
        },
        "routes": sorted(
            (route["dst"], route.get("gateway", ""), route["dev"], route.get("protocol", ""))
            for route in routes
            if not route["dst"].startswith("fe80")
        ),
    }


def one_by_one(
    node: Runtime, sandbox: Sandbox, arguments: dict[str, str], count: int
) -> list[dict[str, Any]]:
    """As Multus calls: the default network, then each of the annotation with its own configuration."""
    results = [node.add(sandbox, native(), arguments=arguments)]
    for number, ifname in enumerate(ifnames(count)[1:], 1):
        config = {
            "cniVersion": "1.0.0",
            "name": name_of(number),
            "type": "orbweaver",
            "network": f"kube-system/{name_of(number)}",
        }
        results.append(node.add(sandbox, config, ifname=ifname, arguments=arguments))
    return results


def detach(node: Runtime, sandbox: Sandbox, count: int) -> None:
    for ifname in reversed(ifnames(count)):
        node.delete(sandbox, ifname=ifname)


@pytest.mark.parametrize("form", [listed, as_json])
@pytest.mark.parametrize("count", range(MOST))
def test_one_add_and_one_for_each_network_make_the_same_pod(
    node: Runtime, pod: Pod, form: Callable[[int], str], count: int
) -> None:
    text = form(count)
    arguments = pod({NETWORKS: text} if count else {})
    together, apart = node.sandbox(), node.sandbox()
    result = node.add(together, WHOLE, arguments=arguments)
    whole = seen(together)
    assert node.links(together) == set(ifnames(count))
    assert {ip["address"] for ip in result["ips"]} == node.addresses(together)
    assert [interface["name"] for interface in result["interfaces"]] == ["eth0"]
    assert node.add(together, WHOLE, arguments=arguments) == result
    node.delete(together, WHOLE)
    assert node.links(together) == set()

    (first, *_) = one_by_one(node, apart, arguments, count)
    assert seen(apart) == whole
    assert [ip["address"] for ip in first["ips"]] == [ip["address"] for ip in result["ips"]]
    assert first["routes"] == result["routes"]
    detach(node, apart, count)


def test_as_the_addresses_of_another_plugin_under_multus(node: Runtime, pod: Pod) -> None:
    """Each net-attach-def in Spiderpool's form: the reference macvlan makes the link and asks us for its addresses."""
    arguments = pod({NETWORKS: listed(2), DEFAULT_ROUTE_NIC: "net1"})
    together, apart = node.sandbox(), node.sandbox()
    node.add(together, WHOLE, arguments=arguments)
    whole = seen(together)
    node.delete(together)
    configs = {
        ifname: {
            "cniVersion": "0.3.1",
            "name": f"of-{ifname}",
            "type": "macvlan",
            "master": "eth1",
            "mode": "bridge",
            "mtu": 1400 if ifname == "data2" else 1500,
            "ipam": {
                "type": "spiderpool",
                "default_ipv4_ippool": [f"{prefix}v4"],
                "default_ipv6_ippool": [f"{prefix}v6"],
            },
        }
        for ifname, prefix in zip(ifnames(2), ("", "net1-", "net2-"), strict=True)
    }
    for ifname, config in configs.items():
        node.add(apart, config, ifname=ifname, arguments=arguments, shim=_MACVLAN)
    other = seen(apart)
    # `lo` is set up by the runtime's loopback plugin there
    assert other["links"] | {"lo": whole["links"]["lo"]} == whole["links"]
    assert {route[:3] for route in other["routes"]} == {route[:3] for route in whole["routes"]}
    for ifname, config in configs.items():
        node.delete(apart, config, ifname=ifname, arguments=arguments, shim=_MACVLAN)
    assert node.links(apart) == set()


@pytest.mark.parametrize(
    ("name", "annotations"),
    [
        ("the default route by another", {DEFAULT_ROUTE_NIC: "net3"}),
        ("routes of the pod", {ROUTES: [{"dst": "172.30.0.0/16", "gw": "172.28.1.4"}]}),
        (
            "pools by interface",
            {
                IPPOOLS: [
                    {"interface": "eth0", "ipv4": ["v4"], "ipv6": ["v6"]},
                    {"interface": "net1", "ipv4": ["net7-v4"], "cleangateway": True},
                    {"interface": "data2", "ipv4": ["net2-v4"], "ipv6": ["net8-v6"]},
                    {"interface": "net3", "ipv6": ["net6-v6"]},
                ]
            },
        ),
        (
            "pools by position",
            {
                IPPOOLS: [
                    {"ipv4": ["v4"], "cleangateway": True},
                    {"ipv4": ["net7-v4"]},
                    {"ipv4": ["net8-v4"], "ipv6": ["net8-v6"]},
                    {"ipv4": ["net6-v4"]},
                ]
            },
        ),
    ],
)
def test_what_annotations_say_of_addresses_and_routes(
    node: Runtime, pod: Pod, name: str, annotations: dict[str, Any]
) -> None:
    arguments = pod({NETWORKS: listed(3), **annotations})
    together, apart = node.sandbox(), node.sandbox()
    node.add(together, WHOLE, arguments=arguments)
    whole = seen(together)
    defaults = {dev for dst, _, dev, _ in whole["routes"] if dst == "default"}
    if DEFAULT_ROUTE_NIC in annotations:
        assert defaults == {"net3"}
    elif name == "pools by position":
        assert defaults == {"net1", "data2"}, "IPv4 by the first that has a gateway, IPv6 by the only one"
    else:
        assert defaults == {"eth0"}
    node.delete(together)
    one_by_one(node, apart, arguments, 3)
    assert seen(apart) == whole
    detach(node, apart, 3)


def test_network_status_and_check(system: System, node: Runtime, pod: Pod) -> None:
    arguments = pod({NETWORKS: listed(RENAMED)})
    sandbox = node.sandbox()
    node.add(sandbox, WHOLE, arguments=arguments)
    rows = {row["interface"]: row for row in system.get("attachments")}
    assert list(rows) == ifnames(RENAMED)
    status = rows["eth0"]["networkStatus"]
    assert [(one["name"], one["interface"], one.get("default", False)) for one in status] == [
        ("underlay", "eth0", True),
        ("kube-system/net-1", "net1", False),
        ("kube-system/net-2", "data2", False),
        ("kube-system/third", "net3", False),
    ]
    with demo_netns.entered(sandbox.netns):
        links = {link["ifname"]: link for link in json.loads(demo_netns.run("ip", "-j", "addr", "show"))}
    for one in status:
        assert one["mac"] == links[one["interface"]]["address"]
        assert one["dns"] == {}
        there = {a["local"] for a in links[one["interface"]]["addr_info"] if a["scope"] == "global"}
        assert set(one["ips"]) == there
        assert set(one) <= {"name", "interface", "ips", "mac", "default", "dns"}
    assert all(not row["networkStatus"] for ifname, row in rows.items() if ifname != "eth0")

    assert node.call("CHECK", sandbox, WHOLE, arguments=arguments).ok
    with demo_netns.entered(sandbox.netns):
        demo_netns.run("ip", "link", "del", "net3")
    error = error_of(node.call("CHECK", sandbox, WHOLE, arguments=arguments))
    assert "net3" in error["msg"]
    node.add(sandbox, WHOLE, arguments=arguments)
    assert node.call("CHECK", sandbox, WHOLE, arguments=arguments).ok


def test_a_new_sandbox_has_the_same_addresses_and_the_old_ones_del_changes_nothing(
    node: Runtime, pod: Pod
) -> None:
    arguments = pod({NETWORKS: listed(4)})
    old, new = node.sandbox(), node.sandbox()
    node.add(old, WHOLE, arguments=arguments)
    before = seen(old)
    node.add(new, WHOLE, arguments=arguments)
    assert seen(new) == before
    node.delete(old)
    assert node.call("CHECK", new, WHOLE, arguments=arguments).ok
    assert seen(new) == before


@pytest.mark.parametrize(
    ("networks_text", "named"),
    [
        (f"{listed(2)},kube-system/nowhere", "kube-system/nowhere"),
        (f"{listed(2)},kube-system/net-3", "kube-system/net-3"),
        ("kube-system/tiny,kube-system/tiny", "kube-system/tiny"),
    ],
)
def test_one_network_that_cannot_be_and_there_is_nothing(
    system: System, node: Runtime, pod: Pod, networks_text: str, named: str
) -> None:
    sandbox = node.sandbox()
    error = error_of(node.call("ADD", sandbox, WHOLE, arguments=pod({NETWORKS: networks_text})))
    assert named in error["msg"]
    assert node.links(sandbox) == set()
    assert system.get("leases") == [], "nothing is drained"


def test_an_interface_that_is_there_already_is_no_second_attachment(node: Runtime, pod: Pod) -> None:
    arguments = pod({NETWORKS: listed(1)})
    sandbox = node.sandbox()
    node.add(sandbox, WHOLE, arguments=arguments)
    before = seen(sandbox)
    config = {"cniVersion": "1.0.0", "name": "n", "type": "orbweaver", "network": "kube-system/net-1"}
    error = error_of(node.call("ADD", sandbox, config, ifname="net1", arguments=arguments))
    assert "together with eth0" in error["msg"]
    node.delete(sandbox, ifname="net1")
    assert seen(sandbox) == before


def test_the_default_network_of_a_pod(system: System, node: Runtime, pod: Pod) -> None:
    arguments = pod({DEFAULT_NETWORK: "kube-system/net-2", NETWORKS: "kube-system/net-1"})
    sandbox = node.sandbox()
    result = node.add(sandbox, WHOLE, arguments=arguments)
    assert all(ip["address"].startswith(("172.28.2.", "fd00:28:2:")) for ip in result["ips"])
    (row, _) = system.get("attachments")
    assert [one["name"] for one in row["networkStatus"]] == ["kube-system/net-2", "kube-system/net-1"]


def test_a_container_without_pod_has_its_one_interface(node: Runtime, networks: None) -> None:
    sandbox = node.sandbox()
    node.add(sandbox, WHOLE)
    assert node.links(sandbox) == {"eth0"}


def test_a_value_that_nobody_knows(node: Runtime) -> None:
    error = error_of(node.call("ADD", node.sandbox(), native(multiNetwork="multus")))
    assert error["code"] == 7
    assert "multiNetwork" in error["msg"]
