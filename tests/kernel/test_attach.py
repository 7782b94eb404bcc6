"""Attach on the real kernel, `ip`, `ping` and a sniffer being the oracles."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from services.agent.execute import KernelError, StepTiming
from services.agent.kernel import Kernel
from services.agent.netns import Netns, NetnsError
from services.agent.op import CreateMacvlan
from services.agent.state import DesiredAddress, DesiredInterface, OwnedLink, Route
from tests.kernel.conftest import dual_stack
from tests.support.lab import Lab
from tests.support.pod_view import addresses, flags, links, routes


def attach(kernel: Kernel, lab: Lab, pod: str, *desired: DesiredInterface) -> list[StepTiming]:
    steps: list[StepTiming] = []
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, desired, steps.append)
    return steps


def test_the_pod_has_exactly_what_was_wanted(
    lab: Lab, kernel: Kernel, pod: str, net1: DesiredInterface
) -> None:
    with Netns.open(lab.path(pod)) as netns:
        (attached,) = kernel.attach(netns, (net1,), lambda _: None)
        assert kernel.check(netns, (net1,)) == []

    assert links(lab, pod) == {"lo", "net1"}
    (shown,) = lab.ip(pod, "-d", "link", "show", "net1")
    assert shown["linkinfo"] == {"info_kind": "macvlan", "info_data": shown["linkinfo"]["info_data"]}
    assert shown["linkinfo"]["info_data"]["mode"] == "bridge"
    assert (shown["ifindex"], shown["address"], shown["mtu"]) == (attached.ifindex, net1.mac, 1500)
    assert {"UP", "LOWER_UP"} <= set(shown["flags"])
    assert attached.mtu_bytes == 1500
    assert attached.sandbox == lab.path(pod)
    assert addresses(lab, pod, "net1") == {"10.6.0.9/16", "fd00:6::9/64"}
    assert flags(lab, pod, "net1") == set()
    assert routes(lab, pod) == {
        ("default", "10.6.0.1", "net1"),
        ("default", "fd00:6::1", "net1"),
        ("10.6.0.0/16", "", "net1"),
        ("fd00:6::/64", "", "net1"),
    }
    assert "UP" in lab.ip(pod, "link", "show", "lo")[0]["flags"]


def test_pods_reach_each_other_and_the_gateway_at_once(lab: Lab, kernel: Kernel) -> None:
    same_node, other_node = lab.pods(2)
    second = Kernel(lab.path(lab.nodes[1]))
    try:
        attach(kernel, lab, same_node, dual_stack(20))
        attach(second, lab, other_node, dual_stack(21))
    finally:
        second.close()
    third = lab.pod()
    attach(kernel, lab, third, dual_stack(22))
    for source, target in ((same_node, 21), (same_node, 22), (other_node, 20), (third, 20)):
        assert lab.ping(source, f"10.6.0.{target}")
        assert lab.ping(source, f"fd00:6::{target:x}")
    assert lab.ping(third, "10.6.0.1")
    assert lab.ping(third, "fd00:6::1")


def test_every_step_is_timed_in_order(lab: Lab, kernel: Kernel, pod: str) -> None:
    steps = attach(kernel, lab, pod, dual_stack(23))
    assert [step.name for step in steps] == ["netns.open", "link.create", "address.batch", "announce"]
    times = [moment for step in steps for moment in (step.start_ns, step.end_ns)]
    assert times == sorted(times)
    assert not any(step.error for step in steps)


def test_the_neighbours_hear_of_the_new_addresses(lab: Lab, kernel: Kernel) -> None:
    sibling, pod = lab.pods(2)
    attach(kernel, lab, sibling, dual_stack(30))
    listeners = {lab.switch: "br0", lab.nodes[1]: "eth1", sibling: "net1"}
    sniffers = {name: _sniffer(lab.path(name), ifname) for name, ifname in listeners.items()}
    try:
        wanted = dual_stack(31)
        attach(kernel, lab, pod, wanted)
        for name, sniffer in sniffers.items():
            arp, advertisement = _announcements(sniffer, wanted.mac)
            assert arp is not None, name
            assert (arp.op, arp.psrc, arp.pdst, arp.hwsrc) == (1, "10.6.0.31", "10.6.0.31", wanted.mac)
            assert advertisement is not None, name
            assert (advertisement[IPv6].src, advertisement[IPv6].dst) == ("fd00:6::1f", "ff02::1")
            assert advertisement[IPv6].hlim == 255
            announced = advertisement[ICMPv6ND_NA]
            assert (announced.tgt, announced.R, announced.S, announced.O) == ("fd00:6::1f", 0, 0, 1)
            assert advertisement[ICMPv6NDOptDstLLAddr].lladdr == wanted.mac
    finally:
        for sniffer in sniffers.values():
            sniffer.close()


def test_an_address_that_moves_is_reached_without_delay(lab: Lab, kernel: Kernel) -> None:
    peer, first, second = lab.pods(3)
    attach(kernel, lab, peer, dual_stack(40))
    attach(kernel, lab, first, dual_stack(41))
    assert lab.ping(peer, "10.6.0.41")
    lab.remove(first)
    moved = DesiredInterface(
        ifname="net1", parent="eth1", mac="02:00:00:00:99:99", addresses=dual_stack(41).addresses
    )
    attach(kernel, lab, second, moved)
    assert lab.ping(peer, "10.6.0.41")
    assert lab.ping(peer, "fd00:6::29")


def test_routes_mtu_and_a_gateway_outside_the_subnet(lab: Lab, kernel: Kernel, pod: str) -> None:
    wanted = DesiredInterface(
        ifname="net1",
        parent="eth1",
        mac="02:00:00:00:01:01",
        mtu_bytes=1400,
        addresses=(
            DesiredAddress(address="10.6.5.1/32", gateway="10.9.0.1"),
            DesiredAddress(address="FD00:6:0::5:1/128", gateway="fd00:9::1"),
        ),
        routes=(
            Route(dst="192.0.2.0/24", gw="10.9.0.1"),
            Route(dst="198.51.100.0/24"),
            Route(dst="10.6.5.1/32"),
            Route(dst="2001:db8::/32", gw="fe80::1"),
        ),
    )
    with Netns.open(lab.path(pod)) as netns:
        (attached,) = kernel.attach(netns, (wanted,), lambda _: None)
        assert kernel.check(netns, (wanted,)) == []
    assert attached.mtu_bytes == 1400
    assert routes(lab, pod) >= {
        ("default", "10.9.0.1", "net1"),
        ("default", "fd00:9::1", "net1"),
        ("192.0.2.0/24", "10.9.0.1", "net1"),
        ("198.51.100.0/24", "", "net1"),
        ("2001:db8::/32", "fe80::1", "net1"),
    }


def test_a_route_to_an_own_subnet_is_the_kernels(lab: Lab, kernel: Kernel, pod: str) -> None:
    plain = dual_stack(49)
    wanted = _changed(plain, routes=(Route(dst="10.6.0.0/16"), Route(dst="fd00:6::/64")))
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (wanted,), lambda _: None)
        assert kernel.check(netns, (wanted,)) == []


def test_several_interfaces_are_made_in_one_go(lab: Lab, kernel: Kernel, pod: str) -> None:
    second = DesiredInterface(
        ifname="net2",
        parent="eth1",
        mac="02:00:00:00:02:02",
        addresses=(DesiredAddress(address="10.7.0.2/16", gateway="10.7.0.1"),),
        default_route=False,
    )
    wanted = (dual_stack(50), second)
    with Netns.open(lab.path(pod)) as netns:
        assert [entry.ifname for entry in kernel.attach(netns, wanted, lambda _: None)] == ["net1", "net2"]
        assert kernel.check(netns, wanted) == []
    assert addresses(lab, pod, "net2") == {"10.7.0.2/16"}
    assert ("default", "10.7.0.1", "net2") not in routes(lab, pod)


def test_ipv6_switched_off_by_the_runtime_is_switched_on_for_our_link_only(
    lab: Lab, kernel: Kernel, pod: str
) -> None:
    for name in ("all", "default"):
        lab.run(pod, "sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    steps = attach(kernel, lab, pod, dual_stack(51))
    assert "ipv6.switch" in [step.name for step in steps]
    assert addresses(lab, pod, "net1") == {"10.6.0.51/16", "fd00:6::33/64"}
    assert lab.ping(pod, "fd00:6::1")
    switch = lab.run(pod, "cat", "/proc/sys/net/ipv6/conf/default/disable_ipv6").stdout
    assert switch == "1\n"


def test_ipv4_alone_leaves_ipv6_as_it_is(lab: Lab, kernel: Kernel, pod: str) -> None:
    lab.run(pod, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    only_ipv4 = DesiredInterface(
        ifname="net1", parent="eth1", mac="02:00:00:00:03:03", addresses=dual_stack(52).addresses[:1]
    )
    attach(kernel, lab, pod, only_ipv4)
    assert lab.run(pod, "cat", "/proc/sys/net/ipv6/conf/net1/disable_ipv6").stdout == "1\n"


def test_attach_again_changes_nothing_and_announces_again(lab: Lab, kernel: Kernel, pod: str) -> None:
    attach(kernel, lab, pod, dual_stack(53))
    before = lab.ip(pod, "link", "show", "net1")
    steps = attach(kernel, lab, pod, dual_stack(53))
    assert [step.name for step in steps] == ["netns.open", "announce"]
    assert lab.ip(pod, "link", "show", "net1") == before


def test_our_link_with_the_addresses_of_an_earlier_lease_gets_the_new_ones(
    lab: Lab, kernel: Kernel, pod: str
) -> None:
    attach(kernel, lab, pod, dual_stack(54))
    renewed = DesiredInterface(
        ifname="net1", parent="eth1", mac=dual_stack(54).mac, addresses=dual_stack(55).addresses
    )
    attach(kernel, lab, pod, renewed)
    assert addresses(lab, pod, "net1") == {"10.6.0.55/16", "fd00:6::37/64"}
    assert ("default", "10.6.0.1", "net1") in routes(lab, pod)


def test_a_link_that_only_the_kernel_knows_is_made_anew_by_its_addresses(
    lab: Lab, kernel: Kernel, pod: str, net1: DesiredInterface
) -> None:
    """The journal was lost, and with it the MAC by which a link of ours is known; the lease gives the same addresses again."""
    attach(kernel, lab, pod, net1)
    again = _changed(net1, mac="02:00:00:00:0b:0b")
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (again,), lambda _: None)
        assert kernel.check(netns, (again,)) == []
        assert kernel.check(netns, (net1,)) != []
    assert links(lab, pod) == {"lo", "net1"}
    assert addresses(lab, pod, "net1") == {"10.6.0.9/16", "fd00:6::9/64"}


@pytest.mark.parametrize("reason", ["missing", "down", "mtu", "taken", "mac", "foreign"])
def test_a_refusal_names_its_cause_and_leaves_nothing(
    lab: Lab, kernel: Kernel, pod: str, reason: str
) -> None:
    wanted = dual_stack(60)
    name, words = {
        "missing": ("parent_missing", "no link 'eth9'"),
        "down": ("parent_missing", "is down"),
        "mtu": ("config_invalid", "above 1500"),
        "taken": ("kernel_refused", "in use as a bridge port"),
        "mac": ("kernel_refused", "another link on 'eth1' has the MAC"),
        "foreign": ("link_exists", "(veth, 02:00:00:00:0f:0f) that is not ours"),
    }[reason]
    node, made = lab.nodes[0], ""
    if reason == "missing":
        wanted = _changed(wanted, parent="eth9")
    elif reason == "down":
        lab.ip(node, "link", "add", "down0", "type", "veth", "peer", "name", "down1")
        wanted, made = _changed(wanted, parent="down0"), "down0"
    elif reason == "mtu":
        wanted = _changed(wanted, mtu_bytes=9000)
    elif reason == "taken":
        # A port of a bridge has a receive handler already, as the parent of an ipvlan has.
        lab.ip(node, "link", "add", "br1", "type", "bridge")
        lab.ip(node, "link", "add", "port0", "type", "veth", "peer", "name", "port9")
        lab.ip(node, "link", "set", "port0", "master", "br1", "up")
        wanted, made = _changed(wanted, parent="port0"), "port0"
    elif reason == "mac":
        attach(kernel, lab, lab.pod(), wanted)
    else:
        lab.ip(
            pod, "link", "add", "net1", "address", "02:00:00:00:0f:0f", "type", "veth", "peer", "name", "x"
        )
    before = links(lab, pod)
    try:
        with pytest.raises(KernelError) as raised:
            attach(kernel, lab, pod, wanted)
    finally:
        if made:
            lab.ip(node, "link", "del", made)
        if reason == "taken":
            lab.ip(node, "link", "del", "br1")
    assert raised.value.kind.name == name
    assert words in raised.value.message
    if reason == "missing":
        assert "eth1" in raised.value.message
    if reason in ("taken", "mac"):
        assert isinstance(raised.value.op, CreateMacvlan)
        assert raised.value.errno
    assert links(lab, pod) == before
    assert "UP" not in lab.ip(pod, "link", "show", "lo")[0]["flags"]


def test_the_nodes_own_namespace_is_refused(lab: Lab, kernel: Kernel, net1: DesiredInterface) -> None:
    for path in (lab.path(lab.nodes[0]), "/proc/self/ns/net"):
        with Netns.open(path) as netns:
            assert kernel.is_node_netns(netns)
            with pytest.raises(NetnsError, match="node's own"):
                kernel.attach(netns, (net1,), lambda _: None)


def test_another_nodes_namespace_is_refused(lab: Lab, pod: str, net1: DesiredInterface) -> None:
    other = lab.path(lab.nodes[1])
    kernel = Kernel(lab.path(lab.nodes[0]), ("/run/netns/none", other))
    try:
        with Netns.open(other) as netns, Netns.open(lab.path(pod)) as own:
            assert kernel.whose(netns) == "another node's"
            assert kernel.whose(own) == ""
            with pytest.raises(NetnsError, match="another node's"):
                kernel.attach(netns, (net1,), lambda _: None)
    finally:
        kernel.close()


def test_a_sandbox_made_anew_gets_the_mac_of_its_predecessor(lab: Lab, kernel: Kernel) -> None:
    """The kernel tears a deleted namespace down later, and until then its MAC is taken."""
    for _ in range(3):
        sandbox = lab.pod()
        attach(kernel, lab, sandbox, dual_stack(61))
        lab.remove(sandbox)


def test_a_pods_interface_may_have_the_name_of_the_nodes(lab: Lab, kernel: Kernel, pod: str) -> None:
    """Linux before 6.15 refuses the plain message for it."""
    wanted = dual_stack(63, "eth1")
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (wanted,), lambda _: None)
        assert kernel.check(netns, (wanted,)) == []
    assert lab.ping(pod, "10.6.0.1")


def test_the_agents_own_namespace_can_be_the_node(lab: Lab, pod: str) -> None:
    script = (
        "import sys\n"
        "from services.agent.kernel import Kernel\n"
        "from services.agent.netns import Netns\n"
        "from tests.kernel.conftest import dual_stack\n"
        "kernel = Kernel(None)\n"
        "with Netns.open(sys.argv[1]) as netns, Netns.open('/proc/self/ns/net') as own:\n"
        "    assert kernel.is_node_netns(own) and not kernel.is_node_netns(netns)\n"
        "    kernel.attach(netns, (dual_stack(62),), lambda _: None)\n"
        "    print(kernel.check(netns, (dual_stack(62),)))\n"
        "kernel.close()\n"
    )
    done = lab.run(lab.nodes[1], sys.executable, "-W", "error", "-c", script, lab.path(pod), check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert lab.ping(pod, "10.6.0.1")


def test_the_modules_that_run_in_the_agent_stay_light(lab: Lab) -> None:
    """pyroute2 and scapy are oracles here: the agent has no memory to spare for them."""
    script = "import sys, services.agent.kernel; print({'pyroute2', 'scapy', 'asyncio'} & set(sys.modules))"
    assert lab.run(lab.nodes[0], sys.executable, "-c", script).stdout == "set()\n"


def test_facts_of_a_parent(lab: Lab, kernel: Kernel) -> None:
    parent = kernel.parent("eth1")
    (shown,) = lab.ip(lab.nodes[0], "link", "show", "eth1")
    assert parent is not None
    assert (parent.ifindex, parent.mtu_bytes, parent.up) == (shown["ifindex"], shown["mtu"], True)
    assert kernel.parent("eth9") is None


def test_nothing_stays_open(lab: Lab) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    net1, pod = dual_stack(70), lab.pod()
    before = open_files()
    kernel = Kernel(lab.path(lab.nodes[0]))
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (net1,), lambda _: None)
        identity = netns.device, netns.inode
    owned = [OwnedLink(ifname="net1", mac=net1.mac)]
    kernel.detach(lab.path(pod), *identity, owned, lambda _: None)
    kernel.close()
    assert open_files() == before


def _changed(interface: DesiredInterface, **fields: object) -> DesiredInterface:
    return DesiredInterface(
        **{name: getattr(interface, name) for name in interface.__struct_fields__} | fields
    )  # pyright: ignore


def _sniffer(path: str, ifname: str) -> socket.socket:
    def opened() -> socket.socket:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sniffer.bind((ifname, 3))
        return sniffer

    with Netns.open(path) as netns:
        sniffer = netns.inside(opened)
    sniffer.settimeout(0.2)
    return sniffer


def _announcements(sniffer: socket.socket, mac: str) -> tuple[ARP | None, Ether | None]:
    """What a sniffer has heard of `mac` within a second: its ARP announcement and neighbour advertisement."""
    arp: ARP | None = None
    advertisement: Ether | None = None
    until = time.monotonic() + 1
    while time.monotonic() < until and (arp is None or advertisement is None):
        try:
            frame = Ether(sniffer.recv(2048))
        except TimeoutError:
            continue
        if frame.src != mac:
            continue
        if ARP in frame:
            arp = frame[ARP]
        elif ICMPv6ND_NA in frame:
            advertisement = frame
    return arp, advertisement
