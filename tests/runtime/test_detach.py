"""DEL, CHECK and GC as runtimes really call them: twice, late, with another configuration, with the namespace gone."""

from __future__ import annotations

from services.standalone import demo_netns
from tests.runtime.conftest import Runtime, error_of, native, nothing_held, until


def test_delete_twice(node: Runtime) -> None:
    sandbox = node.sandbox()
    node.add(sandbox)
    node.delete(sandbox)
    assert node.links(sandbox) == set()
    node.delete(sandbox)
    nothing_held(node.system)


def test_delete_of_what_never_was(node: Runtime) -> None:
    node.delete(node.sandbox())


def test_delete_when_the_namespace_is_gone(node: Runtime) -> None:
    sandbox = node.sandbox()
    node.add(sandbox)
    demo_netns.remove(sandbox.netns)
    node.delete(sandbox)
    nothing_held(node.system)


def test_delete_without_a_namespace(node: Runtime) -> None:
    """A runtime that lost the namespace's path leaves CNI_NETNS empty (CNI spec 1.1, "DEL")."""
    sandbox = node.sandbox()
    node.add(sandbox)
    node.delete(sandbox, netns="")
    nothing_held(node.system)
    node.delete(sandbox, without=("CNI_NETNS",))


def test_delete_with_another_configuration(node: Runtime) -> None:
    sandbox = node.sandbox()
    node.add(sandbox)
    node.delete(
        sandbox, native(cniVersion="0.4.0", name="other", master=["nowhere"], ippools={"ipv4": ["none"]})
    )
    assert node.links(sandbox) == set()
    nothing_held(node.system)


def test_check_compares_with_the_kernel(node: Runtime) -> None:
    sandbox = node.sandbox()
    result = node.add(sandbox)
    configuration = native(prevResult=result)
    answer = node.call("CHECK", sandbox, configuration)
    assert answer.ok, answer.complaint()
    assert answer.stdout == b""
    with demo_netns.entered(sandbox.netns):
        demo_netns.run("ip", "addr", "del", result["ips"][0]["address"], "dev", "eth0")
    assert error_of(node.call("CHECK", sandbox, configuration))["code"] == 121


def test_check_of_what_never_was(node: Runtime) -> None:
    assert error_of(
        node.call("CHECK", node.sandbox(), native(prevResult={"cniVersion": "1.0.0", "ips": []}))
    )["code"] in (3, 121)


def test_collection_keeps_what_is_valid(node: Runtime) -> None:
    kept, dropped, foreign = node.sandbox(), node.sandbox(), node.sandbox()
    node.add(kept, native(cniVersion="1.1.0"))
    node.add(dropped, native(cniVersion="1.1.0"))
    node.add(foreign, native(cniVersion="1.1.0", name="another-network"))
    outside = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
    answer = node.call("GC", None, native(cniVersion="1.1.0"), without=outside)
    assert answer.ok, answer.complaint()
    assert node.links(dropped) == {"eth0"}, "without the key of valid attachments nothing is deleted"
    valid = [{"containerID": kept.container_id, "ifname": "eth0"}]
    answer = node.call(
        "GC", None, native(cniVersion="1.1.0") | {"cni.dev/valid-attachments": valid}, without=outside
    )
    assert answer.ok, answer.complaint()
    assert node.links(kept) == {"eth0"}
    assert node.links(foreign) == {"eth0"}, "another network's attachments are not ours to collect"
    until(lambda: node.links(dropped) == set(), "the attachment that is not valid is gone")
    until(lambda: len(node.system.get("leases")) == 4, "its leases are gone")
