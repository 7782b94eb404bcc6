"""Detach on the real kernel: what is ours goes, what is not stays, and what is gone is no error."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import msgspec
import pytest

from services.agent.execute import KernelError
from services.agent.kernel import Detached, Kernel
from services.agent.netns import Netns
from services.agent.state import OwnedLink
from tests.kernel.conftest import dual_stack
from tests.support.lab import Lab
from tests.support.pod_view import links


def attached(kernel: Kernel, lab: Lab, pod: str, number: int) -> tuple[int, int, list[OwnedLink]]:
    """Device and inode of the pod's namespace, and what a journal would say of its link."""
    wanted = dual_stack(number)
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, (wanted,), lambda _: None)
        return netns.device, netns.inode, [OwnedLink(ifname="net1", mac=wanted.mac)]


def detach(kernel: Kernel, path: str, device: int, inode: int, owned: list[OwnedLink]) -> Detached:
    return kernel.detach(path, device, inode, owned, lambda _: None)


def test_the_link_goes_and_a_second_detach_finds_nothing(lab: Lab, kernel: Kernel, pod: str) -> None:
    device, inode, owned = attached(kernel, lab, pod, 10)
    assert detach(kernel, lab.path(pod), device, inode, owned) == Detached(removed=("net1",))
    assert links(lab, pod) == {"lo"}
    assert detach(kernel, lab.path(pod), device, inode, owned) == Detached()


def test_the_address_can_be_used_again_at_once(lab: Lab, kernel: Kernel) -> None:
    first, second = lab.pods(2)
    device, inode, owned = attached(kernel, lab, first, 11)
    detach(kernel, lab.path(first), device, inode, owned)
    attached(kernel, lab, second, 11)
    assert lab.ping(second, "10.6.0.1")


def test_many_links_go_and_the_pods_own_stay(lab: Lab, kernel: Kernel, pod: str) -> None:
    identity, owned = many(kernel, lab, pod)
    lab.run(pod, "ip", "link", "add", "own0", "type", "bridge")
    lab.run(pod, "ip", "link", "del", "net3")
    lab.run(pod, "ip", "link", "set", "net4", "name", "renamed")
    found = detach(kernel, lab.path(pod), *identity, owned)
    assert set(found.removed) == {"net0", "net1", "net2", "renamed", "net5", "net6", "net7"}
    assert links(lab, pod) == {"lo", "own0"}


def test_many_links_go_at_once(lab: Lab, kernel: Kernel, pod: str) -> None:
    """The kernel waits once for all of them, not once for each: the best of some tries tells."""
    took_s: dict[int, list[float]] = {1: [], 8: []}
    for count in (8, 1) * 4:
        identity, owned = many(kernel, lab, pod, count)
        start_s = time.monotonic()
        detach(kernel, lab.path(pod), *identity, owned)
        took_s[count].append(time.monotonic() - start_s)
    assert min(took_s[8]) < 4 * min(took_s[1])


def many(kernel: Kernel, lab: Lab, pod: str, count: int = 8) -> tuple[tuple[int, int], list[OwnedLink]]:
    """Identity of the namespace, and what a journal would say of its links."""
    wanted = tuple(
        msgspec.structs.replace(dual_stack(30 + n), ifname=f"net{n}", default_route=False)
        for n in range(count)
    )
    with Netns.open(lab.path(pod)) as netns:
        kernel.attach(netns, wanted, lambda _: None)
        identity = (netns.device, netns.inode)
    return identity, [OwnedLink(ifname=one.ifname, mac=one.mac) for one in wanted]


def test_a_namespace_that_is_gone_is_success(lab: Lab, kernel: Kernel, pod: str, tmp_path: Path) -> None:
    device, inode, owned = attached(kernel, lab, pod, 12)
    lab.remove(pod)
    assert detach(kernel, lab.path(pod), device, inode, owned) == Detached(gone=True)
    # A runtime that unmounts without removing leaves an ordinary file.
    left = tmp_path / "left"
    left.touch()
    assert detach(kernel, str(left), device, inode, owned) == Detached(gone=True)
    assert detach(kernel, "/proc/self/ns/mnt", device, inode, owned) == Detached(gone=True)


def test_another_namespace_at_the_same_path_is_not_touched(lab: Lab, kernel: Kernel) -> None:
    old, new = lab.pods(2)
    device, inode, owned = attached(kernel, lab, old, 13)
    lab.remove(old)
    attached(kernel, lab, new, 13)
    assert detach(kernel, lab.path(new), device, inode, owned) == Detached(gone=True)
    assert links(lab, new) == {"lo", "net1"}


def test_a_foreign_link_of_our_name_is_spared(lab: Lab, kernel: Kernel, pod: str) -> None:
    device, inode, owned = attached(kernel, lab, pod, 14)
    lab.ip(pod, "link", "del", "net1")
    lab.ip(pod, "link", "add", "net1", "address", owned[0].mac, "type", "veth", "peer", "name", "other")
    assert detach(kernel, lab.path(pod), device, inode, owned) == Detached(spared=("net1",))
    assert links(lab, pod) == {"lo", "net1", "other"}


def test_a_macvlan_with_another_mac_is_spared(lab: Lab, kernel: Kernel, pod: str) -> None:
    device, inode, _ = attached(kernel, lab, pod, 15)
    owned = [OwnedLink(ifname="net1", mac="02:00:00:00:00:77")]
    assert detach(kernel, lab.path(pod), device, inode, owned) == Detached(spared=("net1",))
    assert links(lab, pod) == {"lo", "net1"}


def test_our_link_is_found_under_the_name_that_the_pod_gave_it(lab: Lab, kernel: Kernel, pod: str) -> None:
    device, inode, owned = attached(kernel, lab, pod, 16)
    lab.ip(pod, "link", "set", "net1", "down")
    lab.ip(pod, "link", "set", "net1", "name", "renamed0")
    assert detach(kernel, lab.path(pod), device, inode, owned) == Detached(removed=("renamed0",))
    assert links(lab, pod) == {"lo"}


def test_a_namespace_that_cannot_be_opened_is_not_taken_for_gone(lab: Lab, kernel: Kernel, pod: str) -> None:
    device, inode, owned = attached(kernel, lab, pod, 17)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(KernelError, match="Too many open files"):
            detach(kernel, lab.path(pod), device, inode, owned)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert links(lab, pod) == {"lo", "net1"}


def test_nothing_is_ever_deleted_in_the_nodes_own_namespace(lab: Lab, kernel: Kernel) -> None:
    path = lab.path(lab.nodes[0])
    (eth1,) = lab.ip(lab.nodes[0], "link", "show", "eth1")
    with Netns.open(path) as node:
        owned = [OwnedLink(ifname="eth1", mac=eth1["address"])]
        assert detach(kernel, path, node.device, node.inode, owned) == Detached(gone=True)
    assert "eth1" in links(lab, lab.nodes[0])
