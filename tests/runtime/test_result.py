"""Results in every version that runtimes ask for, as the specification of that version forms them."""

from __future__ import annotations

import ipaddress
import re
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runtime.conftest import Runtime, native

OLD = ("0.3.0", "0.3.1", "0.4.0")
NEW = ("1.0.0", "1.1.0")


@pytest.mark.parametrize("version", OLD + NEW)
def test_result_has_the_form_of_its_version(node: Runtime, version: str) -> None:
    sandbox = node.sandbox()
    result = node.add(sandbox, native(cniVersion=version))
    assert result["cniVersion"] == version
    (interface,) = [i for i in result["interfaces"] if i.get("sandbox")]
    assert interface["name"] == "eth0"
    assert interface["sandbox"] == str(sandbox.netns)
    assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", interface["mac"])
    index = result["interfaces"].index(interface)
    for ip in result["ips"]:
        assert ip["interface"] == index
        family = ipaddress.ip_interface(ip["address"]).version
        # 0.3.x and 0.4.0 name the family of each address, 1.0.0 took the key away.
        assert ip.get("version") == (str(family) if version in OLD else None)
    assert {ipaddress.ip_interface(ip["address"]).version for ip in result["ips"]} == {4, 6}
    assert {ip["gateway"] for ip in result["ips"]} == {"172.27.0.1", "fd00:27::1"}
    for route in result["routes"]:
        assert set(route) <= {"dst", "gw"} | (
            {"mtu", "advmss", "priority", "table", "scope"} if version == "1.1.0" else set()
        )
    assert isinstance(result["dns"], dict)
    assert set(interface) <= {"name", "mac", "sandbox"} | (
        {"mtu", "socketPath", "pciID"} if version == "1.1.0" else set()
    )
    assert {ip["address"] for ip in result["ips"]} == node.addresses(sandbox)


def test_version_lists_all(node: Runtime) -> None:
    answer = node.call("VERSION", None, {"cniVersion": "1.0.0"}).result()
    assert set(OLD + NEW) <= set(answer["supportedVersions"])
    assert answer["cniVersion"]


def test_status_of_a_node_that_can_attach(node: Runtime) -> None:
    answer = node.call(
        "STATUS", None, native(cniVersion="1.1.0"), without=("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
    )
    assert answer.ok, answer.complaint()
    assert answer.stdout == b""


def test_add_again_gives_the_same(node: Runtime) -> None:
    sandbox = node.sandbox()
    first = node.add(sandbox)
    assert node.add(sandbox) == first
    assert node.links(sandbox) == {"eth0"}


def test_ipv4_alone(node: Runtime) -> None:
    sandbox = node.sandbox()
    result = node.add(sandbox, native(ippools={"ipv4": ["v4"]}))
    assert [ipaddress.ip_interface(ip["address"]).version for ip in result["ips"]] == [4]


def test_two_interfaces_of_one_container(node: Runtime) -> None:
    sandbox = node.sandbox()
    first, second = node.add(sandbox), node.add(sandbox, ifname="net1")
    assert not {ip["address"] for ip in first["ips"]} & {ip["address"] for ip in second["ips"]}
    assert node.links(sandbox) == {"eth0", "net1"}
    node.delete(sandbox, ifname="net1")
    assert node.links(sandbox) == {"eth0"}


def test_network_by_name(node: Runtime) -> None:
    """The whole configuration is an object; what the runtime keeps only names it."""
    sandbox = node.sandbox()
    named = {"cniVersion": "1.0.0", "name": "underlay", "type": "orbweaver", "network": "kube-system/named"}
    result = node.add(sandbox, named)
    assert [ipaddress.ip_interface(ip["address"]).version for ip in result["ips"]] == [4]
    assert node.links(sandbox) == {"eth0"}


def test_one_attachment_asked_for_many_times_at_once(node: Runtime) -> None:
    sandbox = node.sandbox()
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(lambda _: node.add(sandbox), range(8)))
    assert all(result == results[0] for result in results)
    assert len(node.system.get("leases")) == 2


def test_the_trace_of_the_runtime_goes_on(node: Runtime) -> None:
    trace_id, sandbox = secrets.token_hex(16), node.sandbox()
    node.add(sandbox, changes={"TRACEPARENT": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    waterfall = node.system.cli("get", "traces", trace_id)
    for span in ("cni ADD", "shim.start", "allocator.decide", "log.append", "link.create"):
        assert span in waterfall
