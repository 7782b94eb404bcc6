"""What one run of the demo has: its place, its pods, the installed CNI executables, its figures and its progress.

Owns attach and detach of a pod as a container runtime does them for kubelet. Must not know what is shown in which order.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console

from services.standalone import demo_exec, demo_manifests, demo_netns, demo_system
from services.standalone.demo_netns import LabError
from services.standalone.demo_place import Place

PLACE = Place(Path("/var/lib/orbweaver-demo"), "orbdemo-")
SWITCH = "switch"
NODES = ("node-1", "node-2")
_CONFIGURATION = msgspec.json.encode(
    {
        "cniVersion": "1.0.0",
        "name": "underlay",
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": ["eth1"],
        "mtu": 0,
        "ippools": {"ipv4": ["underlay-v4"], "ipv6": ["underlay-v6"]},
    }
)


class Summary(msgspec.Struct, kw_only=True):
    """The last line. Pairs are ordered and per family; a leak is a lease, link, namespace, process or file."""

    pods: int
    attached: int = 0
    reachable_pairs: int = 0
    of_pairs: int
    add_p50_ms: float = 0.0
    add_p99_ms: float = 0.0
    del_p50_ms: float = 0.0
    leaks: int = 0
    ok: bool = False


@dataclass
class Pod:
    """A pod and its present sandbox."""

    name: str
    node: str
    uid: str = ""
    container_id: str = ""
    netns: Path = Path()
    addresses: tuple[str, ...] = ()
    add_ms: float = 0.0

    def new_sandbox(self) -> None:
        self.container_id = secrets.token_hex(32)
        (self.netns,) = demo_netns.add_pods([f"{PLACE.prefix}{self.name}-{self.container_id[:8]}"])


@dataclass
class Show:
    """Progress: on a terminal a spinner while a step runs, elsewhere one line when it is done."""

    console: Console
    step_failed: str = ""

    @contextlib.contextmanager
    def step(self, title: str) -> Generator[list[str]]:
        """Yields a list for remarks that follow the title."""
        remarks: list[str] = []
        start_s = time.monotonic()
        try:
            with self.console.status(title) if self.console.is_terminal else contextlib.nullcontext():
                yield remarks
        except BaseException:
            self.step_failed = title
            raise
        took = f"{time.monotonic() - start_s:5.2f} s"
        self.console.print(
            f"[green]✓[/] {took}  {': '.join((title, ', '.join(remarks))) if remarks else title}"
        )


@dataclass
class Stage:
    """What one run made and measured."""

    show: Show
    summary: Summary
    system: demo_system.System
    folder: demo_manifests.Folder
    pods: list[Pod] = field(default_factory=list[Pod])
    shims: dict[str, Path] = field(default_factory=dict[str, Path])
    add_ms: list[float] = field(default_factory=list[float])
    del_ms: list[float] = field(default_factory=list[float])
    leaks: list[str] = field(default_factory=list[str])

    def cni(
        self, command: str, pod: Pod, *, container_id: str = "", netns: str | None = None
    ) -> demo_exec.Answer:
        container_id = container_id or pod.container_id
        shim = self.shims[pod.node]
        return demo_exec.call(
            shim,
            demo_exec.environment(
                command,
                container_id=container_id,
                netns=str(pod.netns) if netns is None else netns,
                cni_path=str(shim.parent),
                arguments=demo_exec.pod_arguments(demo_manifests.NAMESPACE, pod.name, pod.uid, container_id),
            ),
            _CONFIGURATION,
            netns=PLACE.netns(pod.node),
        )

    def attach(self, pod: Pod) -> None:
        """ADD in the pod's present sandbox. Raises LabError with the CNI error."""
        answer = self.cni("ADD", pod)
        if not answer.ok:
            raise LabError(f"ADD of {pod.name} on {pod.node}: {answer.complaint()}")
        pod.addresses = tuple(str(ip["address"]).partition("/")[0] for ip in answer.result()["ips"])
        pod.add_ms = answer.duration_ms
        self.add_ms.append(answer.duration_ms)

    def detach(self, pod: Pod, *, container_id: str = "", netns: str | None = None) -> None:
        answer = self.cni("DEL", pod, container_id=container_id, netns=netns)
        if not answer.ok:
            raise LabError(f"DEL of {pod.name} on {pod.node}: {answer.complaint()}")
        self.del_ms.append(answer.duration_ms)

    def netns_of(self) -> dict[str, Path]:
        return {address: pod.netns for pod in self.pods for address in pod.addresses}


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank quantile, 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
