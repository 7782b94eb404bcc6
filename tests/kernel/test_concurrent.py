"""Sixteen threads at once on one Kernel: nothing is mixed up, nothing is left, no file stays open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.agent.kernel import Kernel
from services.agent.netns import Netns
from services.agent.state import OwnedLink
from tests.kernel.conftest import dual_stack
from tests.support.lab import Lab
from tests.support.pod_view import addresses, links

THREADS = 16
PODS = 100


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_hundred_attaches_and_detaches_from_sixteen_threads(lab: Lab) -> None:
    pods = lab.pods(PODS)
    before = open_files()
    kernel = Kernel(lab.path(lab.nodes[0]))

    def attach(number: int) -> list[str]:
        wanted = (dual_stack(1000 + number),)
        with Netns.open(lab.path(pods[number])) as netns:
            kernel.attach(netns, wanted, lambda _: None)
            return kernel.check(netns, wanted)

    def detach(number: int) -> tuple[str, ...]:
        with Netns.open(lab.path(pods[number])) as netns:
            identity = netns.device, netns.inode
        owned = [OwnedLink(ifname="net1", mac=dual_stack(1000 + number).mac)]
        return kernel.detach(lab.path(pods[number]), *identity, owned, lambda _: None).removed

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(attach, range(PODS))) == [[]] * PODS
        for number in (0, PODS - 1):
            assert dual_stack(1000 + number).addresses[0].address in addresses(lab, pods[number], "net1")
        assert lab.ping(pods[0], dual_stack(1000 + PODS - 1).addresses[0].address.partition("/")[0])
        assert list(threads.map(detach, range(PODS))) == [("net1",)] * PODS
    kernel.close()
    assert all(links(lab, pod) == {"lo"} for pod in pods[:: PODS // 10])
    assert open_files() == before
