"""All or nothing: a failure at any op takes back the ones before; a process killed at any op is no obstacle."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from services.agent import observe
from services.agent.execute import Execution, KernelError, StepTiming
from services.agent.kernel import Kernel
from services.agent.netns import Netns
from services.agent.op import AddRoute, Op
from services.agent.plan import Plan, announcements, plan
from services.agent.state import DesiredInterface, Observed, Route
from tests.kernel.conftest import dual_stack
from tests.support.lab import Lab
from tests.support.pod_view import links

WANTED = (
    DesiredInterface(
        ifname="net1",
        parent="eth1",
        mac=dual_stack(9).mac,
        addresses=dual_stack(9).addresses,
        routes=(Route(dst="192.0.2.0/24", gw="10.6.0.1"), Route(dst="2001:db8::/32", gw="fd00:6::1")),
    ),
    DesiredInterface(
        ifname="net2",
        parent="eth1",
        mac=dual_stack(10).mac,
        addresses=dual_stack(10).addresses,
        default_route=False,
    ),
)
FAILING = AddRoute(ifname="absent0", dst="192.0.2.0/24")
OPS = 14


class Bench:
    """A pod's namespace with the product's own hands in it, so that a test can stop between two ops."""

    def __init__(self, lab: Lab, pod: str, on_step: Callable[[StepTiming], None] = lambda _: None) -> None:
        self._node_netns = Netns.open(lab.path(lab.nodes[0]))
        self.netns = Netns.open(lab.path(pod))
        self._node = self._node_netns.sockets_inside()
        self._pod = self.netns.sockets_inside()
        self.execution = Execution(self._node, self._pod, self.netns, on_step)

    def observed(self) -> Observed:
        """Without the addresses of lo: the kernel sets them when it goes up, and leaves them when it goes down."""
        seen = observe.observe(self._node, self._pod, self.netns, self._node_netns)
        kept = tuple(entry for entry in seen.addresses if entry.ifname != "lo")
        return msgspec.structs.replace(seen, addresses=kept)

    def ops(self) -> tuple[Op, ...]:
        planned = plan(WANTED, self.observed())
        assert isinstance(planned, Plan)
        return planned.ops

    def close(self) -> None:
        self._node.close_fast()
        self._pod.close_fast()
        self.netns.close()
        self._node_netns.close()


@pytest.fixture
def disabled_pod(lab: Lab, pod: str) -> str:
    """With IPv6 switched off, so that every kind of op is in the plan."""
    lab.run(pod, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    return pod


@pytest.mark.parametrize("done", range(OPS + 1))
def test_a_failure_after_any_op_leaves_the_namespace_as_it_was(
    lab: Lab, disabled_pod: str, done: int
) -> None:
    bench = Bench(lab, disabled_pod)
    try:
        before = bench.observed()
        ops = bench.ops()
        assert len(ops) == OPS
        with pytest.raises(KernelError) as raised:
            bench.execution.run((*ops[:done], FAILING, *ops[done:]))
        assert raised.value.op == FAILING
        assert bench.execution.undo() == ()
        assert bench.observed() == before
    finally:
        bench.close()


@pytest.mark.parametrize("done", range(OPS + 1))
def test_a_process_killed_after_any_op_is_finished_by_the_next(
    lab: Lab, kernel: Kernel, disabled_pod: str, done: int
) -> None:
    bench = Bench(lab, disabled_pod)
    try:
        bench.execution.run(bench.ops()[:done])
    finally:
        bench.close()
    with Netns.open(lab.path(disabled_pod)) as netns:
        kernel.attach(netns, WANTED, lambda _: None)
        assert kernel.check(netns, WANTED) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"routes": (Route(dst="192.0.2.0/24", gw="10.6.255.255"),)},
            "add route 192.0.2.0/24 via 10.6.255.255",
        ),
        ({"addresses": dual_stack(9).addresses * 2}, "add address 10.6.0.9/16"),
        ({"ifname": "way-too-long-name-for-linux"}, "create macvlan way-too-long-name-for-linux"),
        ({"mac": "01:00:5e:00:00:01"}, "create macvlan net3"),
    ],
)
def test_the_sentence_names_the_op_and_what_the_kernel_said(
    lab: Lab, kernel: Kernel, pod: str, fault: dict[str, object], words: str
) -> None:
    plain = {
        "ifname": "net3",
        "parent": "eth1",
        "mac": "02:00:00:00:03:03",
        "addresses": dual_stack(9).addresses,
    }
    broken = DesiredInterface(**plain | fault)  # pyright: ignore
    with Netns.open(lab.path(pod)) as netns, pytest.raises(KernelError) as raised:
        kernel.attach(netns, (WANTED[1], broken), lambda _: None)
    assert words in raised.value.message
    assert raised.value.errno
    assert links(lab, pod) == {"lo"}
    assert "UP" not in lab.ip(pod, "link", "show", "lo")[0]["flags"]


def test_an_undo_spares_a_link_that_took_the_name_of_ours(lab: Lab, pod: str) -> None:
    bench = Bench(lab, pod)
    try:
        bench.execution.run(bench.ops()[:1])
        lab.ip(pod, "link", "del", "net1")
        lab.ip(pod, "link", "add", "net1", "type", "veth", "peer", "name", "other")
        assert bench.execution.undo() == ()
    finally:
        bench.close()
    assert links(lab, pod) == {"lo", "net1", "other"}


def test_an_announcement_that_fails_is_noted_and_fails_nothing(lab: Lab, pod: str) -> None:
    steps: list[StepTiming] = []
    bench = Bench(lab, pod, steps.append)
    try:
        bench.execution.run((*bench.ops(), *announcements(WANTED)))
    finally:
        bench.close()
    assert steps[-1].name == "announce"
    assert steps[-1].error.startswith("announce 10.6.0.9 on net1: no packet socket")


def test_the_kernels_own_words_are_in_the_sentence(lab: Lab, kernel: Kernel, pod: str) -> None:
    broken = DesiredInterface(
        ifname="net1",
        parent="eth1",
        mac="02:00:00:00:03:04",
        addresses=dual_stack(9).addresses[:1],
        routes=(Route(dst="192.0.2.0/24", gw="10.6.255.255"),),
    )
    with Netns.open(lab.path(pod)) as netns, pytest.raises(KernelError, match="Nexthop has invalid gateway"):
        kernel.attach(netns, (broken,), lambda _: None)
