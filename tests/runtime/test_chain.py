"""We as the address management of somebody else's plugin: Debian's macvlan with `"ipam":{"type":"spiderpool"}`."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from tests.runtime.conftest import Runtime, native, until

_MACVLAN = Path("/usr/lib/cni/macvlan")
_CONFIGURATION = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "type": "macvlan",
    "master": "eth1",
    "mode": "bridge",
    "ipam": {"type": "spiderpool"},
}


def test_macvlan_of_debian_with_our_addresses(node: Runtime) -> None:
    sandbox = node.sandbox()
    result = node.add(sandbox, _CONFIGURATION, shim=_MACVLAN)
    assert {ipaddress.ip_interface(ip["address"]).version for ip in result["ips"]} == {4, 6}
    assert {ip["address"] for ip in result["ips"]} == node.addresses(sandbox)
    leased = {lease["address"].partition("/")[0] for lease in node.system.get("leases")}
    assert {ip["address"].partition("/")[0] for ip in result["ips"]} == leased
    answer = node.call("CHECK", sandbox, _CONFIGURATION | {"prevResult": result}, shim=_MACVLAN)
    assert answer.ok, answer.complaint()
    node.delete(sandbox, _CONFIGURATION, shim=_MACVLAN)
    assert node.links(sandbox) == set()
    until(lambda: not node.system.get("attachments"), "the attachment is gone")


def test_an_address_rests_while_the_other_plugin_removes_its_link(node: Runtime) -> None:
    """We are called before the link is gone: the next one must not get the address while both could answer for it."""
    sandbox = node.sandbox()
    result = node.add(sandbox, _CONFIGURATION, shim=_MACVLAN)
    node.delete(sandbox, _CONFIGURATION, shim=_MACVLAN)
    following = node.sandbox()
    given = {ip["address"] for ip in node.add(following, native())["ips"]}
    assert not given & {ip["address"] for ip in result["ips"]}
    node.delete(following)
