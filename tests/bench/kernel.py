"""What the kernel part of a dual-stack attach costs: open the namespace, link, addresses, routes, announcement.

`python tests/bench/kernel.py` prints a table and, as its last line, JSON. `measure()` is for the whole benchmark.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from services.agent.execute import StepTiming
from services.agent.kernel import Kernel
from services.agent.netns import Netns
from services.agent.state import DesiredAddress, DesiredInterface, OwnedLink
from tests.support.lab import Lab


def measure(attaches: int = 300, at_once: int = 60) -> dict[str, float]:
    """Attaches one after the other to fresh namespaces, detaches after each `at_once`. Milliseconds."""
    attach_ms: list[float] = []
    detach_ms: list[float] = []
    steps_ms: defaultdict[str, list[float]] = defaultdict(list)

    def on_step(step: StepTiming) -> None:
        steps_ms[step.name].append((step.end_ns - step.start_ns) / 1e6)

    with Lab(nodes=1) as lab:
        kernel = Kernel(lab.path(lab.nodes[0]))
        try:
            for start in range(0, attaches, at_once):
                pods = lab.pods(min(at_once, attaches - start))
                for number, pod in enumerate(pods):
                    began = time.perf_counter()
                    with Netns.open(lab.path(pod)) as netns:
                        kernel.attach(netns, (_interface(number),), on_step)
                        identity = (netns.device, netns.inode)
                    attach_ms.append((time.perf_counter() - began) * 1e3)
                    began = time.perf_counter()
                    link = OwnedLink(ifname="net1", mac=_interface(number).mac)
                    assert kernel.detach(lab.path(pod), *identity, [link], on_step).removed
                    detach_ms.append((time.perf_counter() - began) * 1e3)
                for pod in pods:
                    lab.remove(pod)
        finally:
            kernel.close()
    figures = {
        "kernel_p50_ms": _percentile(attach_ms, 50),
        "kernel_p99_ms": _percentile(attach_ms, 99),
        "kernel_detach_p50_ms": _percentile(detach_ms, 50),
    }
    for name, values in sorted(steps_ms.items()):
        figures[f"step_{name}_p50_ms"] = _percentile(values, 50)
    return figures


def _interface(number: int) -> DesiredInterface:
    return DesiredInterface(
        ifname="net1",
        parent="eth1",
        mac=f"02:00:0a:06:01:{number + 1:02x}",
        addresses=(
            DesiredAddress(address=f"10.6.1.{number + 1}/16", gateway="10.6.0.1"),
            DesiredAddress(address=f"fd00:6::1:{number + 1:x}/64", gateway="fd00:6::1"),
        ),
    )


def _percentile(values: list[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100)[percent - 1], 3)


if __name__ == "__main__":
    found = measure()
    for key, value in found.items():
        print(f"{key:32} {value:8.3f}")
    print(json.dumps(found))
