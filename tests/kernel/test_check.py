"""CHECK sees each single deviation, and nothing in a pod that is as attached."""

from __future__ import annotations

import pytest

from services.agent.kernel import Kernel
from services.agent.netns import Netns
from services.agent.state import DesiredInterface, Route
from tests.kernel.conftest import dual_stack
from tests.support.lab import Lab, batch

DEVIATIONS = {
    "IPv4 address removed": ("address del 10.6.0.9/16 dev net1", "address 10.6.0.9/16 is missing"),
    "IPv6 address removed": ("address del fd00:6::9/64 dev net1", "address fd00:6::9/64 is missing"),
    "IPv4 default route removed": ("route del default", "route 0.0.0.0/0 via 10.6.0.1 is missing"),
    "IPv6 default route removed": ("route del default via fd00:6::1", "route ::/0 via fd00:6::1 is missing"),
    "default route replaced": (
        "route replace default via 10.6.0.2 dev net1",
        "route 0.0.0.0/0 via 10.6.0.1 is missing",
    ),
    "default route of a router advertisement instead": (
        "route del default via fd00:6::1\nroute add default via fe80::1 dev net1 proto ra metric 1024",
        "route ::/0 via fd00:6::1 is missing",
    ),
    "route removed": ("route del 192.0.2.0/24", "route 192.0.2.0/24 via 10.6.0.1 is missing"),
    "MTU changed": ("link set net1 mtu 1400", "has MTU 1400, not 1500"),
    "MAC changed": ("link set net1 address 02:00:00:00:00:01", "that is not ours"),
    "link down": ("link set net1 down", "link net1 is down"),
    "link gone": ("link del net1", "link net1 is missing"),
    "link renamed": ("link set net1 down\nlink set net1 name net9", "link net1 is missing"),
    "mode changed": ("link set net1 type macvlan mode private", "is not a macvlan in bridge mode"),
    "loopback down": ("link set lo down", "link lo is down"),
}


@pytest.fixture
def wanted() -> DesiredInterface:
    plain = dual_stack(9)
    return DesiredInterface(
        ifname="net1",
        parent="eth1",
        mac=plain.mac,
        addresses=plain.addresses,
        routes=(Route(dst="192.0.2.0/24", gw="10.6.0.1"),),
    )


@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_each_deviation_is_told(
    lab: Lab, kernel: Kernel, pod: str, wanted: DesiredInterface, deviation: str
) -> None:
    command, sentence = DEVIATIONS[deviation]
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (wanted,), lambda _: None)
        assert kernel.check(netns, (wanted,)) == []
        batch(command.splitlines(), pod)
        differences = kernel.check(netns, (wanted,))
        if deviation not in ("MAC changed", "link renamed"):
            # A link that is no more known as ours stays; all else an attach makes right.
            kernel.attach(netns, (wanted,), lambda _: None)
            assert kernel.check(netns, (wanted,)) == []
    assert any(sentence in difference for difference in differences), differences


def test_a_link_on_another_parent_is_told(
    lab: Lab, kernel: Kernel, pod: str, wanted: DesiredInterface
) -> None:
    node = lab.nodes[0]
    lab.ip(node, "link", "add", "other0", "type", "veth", "peer", "name", "other1")
    lab.ip(node, "link", "set", "other0", "up")
    try:
        lab.ip(node, "link", "add", "link", "other0", "name", "net1", "address", wanted.mac, "type", "macvlan", "mode", "bridge")  # fmt: skip
        lab.ip(node, "link", "set", "net1", "netns", pod)
        with Netns.open(lab.path(pod)) as netns:
            difference, *_ = kernel.check(netns, (wanted,))
            assert "is not a macvlan in bridge mode on eth1" in difference
            # An attach makes it right: a killed earlier try may have had another configuration.
            kernel.attach(netns, (wanted,), lambda _: None)
            assert kernel.check(netns, (wanted,)) == []
    finally:
        lab.ip(node, "link", "del", "other0")


def test_what_the_pod_itself_added_is_no_deviation(
    lab: Lab, kernel: Kernel, pod: str, wanted: DesiredInterface
) -> None:
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (wanted,), lambda _: None)
        batch(["address add 10.6.9.9/32 dev net1", "route add 203.0.113.0/24 via 10.6.0.1"], pod)
        assert kernel.check(netns, (wanted,)) == []


def test_a_check_changes_nothing(lab: Lab, kernel: Kernel, pod: str, wanted: DesiredInterface) -> None:
    with Netns.open(lab.path(pod)) as netns:
        assert kernel.check(netns, (wanted,)) == ["link net1 is missing", "link lo is down"]
    assert [link["ifname"] for link in lab.ip(pod, "link")] == ["lo"]
