"""A lab of two nodes for the tests of a module, and the agent's kernel on the first of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.agent.kernel import Kernel
from services.agent.state import DesiredAddress, DesiredInterface
from tests.support.lab import Lab

GATEWAYS = ("10.6.0.1/16", "fd00:6::1/64")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nodes=2, gateways=GATEWAYS) as lab:
        yield lab


@pytest.fixture
def kernel(lab: Lab) -> Iterator[Kernel]:
    kernel = Kernel(lab.path(lab.nodes[0]))
    yield kernel
    kernel.close()


@pytest.fixture
def pod(lab: Lab) -> Iterator[str]:
    pod = lab.pod()
    yield pod
    lab.remove(pod)


@pytest.fixture
def net1() -> DesiredInterface:
    """Dual stack with both default routes."""
    return dual_stack(9)


def dual_stack(number: int, ifname: str = "net1") -> DesiredInterface:
    return DesiredInterface(
        ifname=ifname,
        parent="eth1",
        mac=f"02:00:0a:06:{number >> 8:02x}:{number & 255:02x}",
        addresses=(
            DesiredAddress(address=f"10.6.{number >> 8}.{number & 255}/16", gateway="10.6.0.1"),
            DesiredAddress(address=f"fd00:6::{number:x}/64", gateway="fd00:6::1"),
        ),
    )
