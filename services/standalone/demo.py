"""`orbweaver demo`: the main job from the first namespace to the last check that nothing is left.

Owns the order of what is shown. Must not know how any part of the system works: everything goes through the command line, the
installed CNI executable and the wire, as it does for a user.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console
from rich.table import Table

from services.standalone import demo_exec, demo_manifests, demo_netns, demo_reach, demo_system
from services.standalone.demo_netns import LabError
from services.standalone.demo_place import Machine, Place

PLACE = Place(Path("/var/lib/orbweaver-demo"), "orbdemo-")
SWITCH = "switch"
NODES = ("node-1", "node-2")
PODS_PER_NODE = 10
_RELEASE_TIMEOUT_S = 10.0
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
class _Show:
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
class _Run:
    """What one run made and measured."""

    show: _Show
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


def run() -> int:
    """Shows the main job. Returns 0 if every pod reached every other and nothing is left, 1 if not, 2 if it could not begin."""
    console = Console(
        highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120
    )
    if os.geteuid() != 0:
        console.print("orbweaver demo makes network namespaces and links: run it as root.")
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    show = _Show(console)
    count = len(NODES) * PODS_PER_NODE
    summary = Summary(pods=count, of_pairs=count * (count - 1) * 2)
    with PLACE.held(lambda: console.print("· another demo is running; waiting for its end")) as left:
        if left:
            console.print(
                f"· an earlier run was killed: ended or removed {left} processes and namespaces of it"
            )
        before = Machine.look()
        system = demo_system.System(PLACE.root, {node: PLACE.netns(node) for node in NODES})
        this = _Run(show, summary, system, demo_manifests.Folder(system.manifests))
        try:
            _main_job(this)
        except (LabError, OSError, ValueError, KeyError, KeyboardInterrupt) as error:
            what = (
                "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            )
            console.print(f"[red]✗ {show.step_failed or 'failed'}[/]:", end=" ")
            console.print(what, markup=False)
            console.print(system.log_tail(), markup=False)
        finally:
            _end(this, before)
    summary.add_p50_ms = round(quantile(this.add_ms, 0.5), 2)
    summary.add_p99_ms = round(quantile(this.add_ms, 0.99), 2)
    summary.del_p50_ms = round(quantile(this.del_ms, 0.5), 2)
    summary.leaks = len(this.leaks)
    summary.ok = summary.ok and summary.leaks == 0
    print(msgspec.json.encode(summary).decode(), flush=True)
    return 0 if summary.ok else 1


def _main_job(this: _Run) -> None:
    step, system, folder = this.show.step, this.system, this.folder
    with step(f"a switch and {len(NODES)} nodes, each a network namespace"):
        demo_netns.build_switch(
            PLACE.netns(SWITCH).name,
            [PLACE.netns(node).name for node in NODES],
            [f"{demo_manifests.IPV4_GATEWAY}/16", f"{demo_manifests.IPV6_GATEWAY}/64"],
        )
    this.pods += [
        Pod(f"web-{i:02}", NODES[i % len(NODES)], uid=str(uuid.uuid4())) for i in range(this.summary.pods)
    ]
    with step(f"manifests: 2 pools, {len(NODES)} nodes, {len(this.pods)} pods") as remarks:
        folder.network(NODES)
        for pod in this.pods:
            folder.pod(pod.name, pod.uid, pod.node)
        remarks.append(str(folder.path))
    with step("orbweaver up"):
        system.start()
        system.wait_ready(lambda line: this.show.console.print(f"    {line}", markup=False, style="dim"))
    with step("orbweaver cni install, on each node") as remarks:
        for node in NODES:
            this.shims[node] = system.install(node, PLACE.root / "cni" / node)
        remarks.append(str(this.shims[NODES[0]]))
    with demo_reach.Announcements(PLACE.netns(SWITCH), "underlay") as announcements:
        with step("every pod attached by an exec of the CNI executable") as remarks:
            for pod in this.pods:
                pod.new_sandbox()
            for pod in this.pods:
                this.attach(pod)
                this.summary.attached += 1
            remarks.append(f"p50 {quantile(this.add_ms, 0.5):.1f} ms")
        _announced(this, announcements, this.pods)
        _reachable(this)
        _table(this)
        _sandbox_killed(this, announcements)
        _pod_replaced(this, announcements)
    _waterfall(this)
    _all_detached(this)
    this.summary.ok = (
        this.summary.attached == this.summary.pods and this.summary.reachable_pairs == this.summary.of_pairs
    )


def _announced(this: _Run, announcements: demo_reach.Announcements, pods: Sequence[Pod]) -> None:
    with this.show.step("gratuitous ARP and unsolicited NA seen on the switch") as remarks:
        addresses = [address for pod in pods for address in pod.addresses]
        if missing := announcements.missing(addresses):
            raise LabError(f"never announced: {', '.join(missing)}")
        remarks.append(f"{len(addresses)} addresses")


def _reachable(this: _Run) -> None:
    with this.show.step("every pod pings every other, and its gateways") as remarks:
        pairs = demo_reach.ordered_pairs([pod.addresses for pod in this.pods])
        silent = demo_reach.unreachable(this.netns_of(), pairs)
        this.summary.reachable_pairs = len(pairs) - len(silent)
        _no_silence(silent)
        gateways = {4: demo_manifests.IPV4_GATEWAY, 6: demo_manifests.IPV6_GATEWAY}
        _no_silence(
            demo_reach.unreachable(
                this.netns_of(), [(a, gateways[6 if ":" in a else 4]) for a in this.netns_of()]
            )
        )
        remarks.append(f"{len(pairs)} ordered pairs")


def _no_silence(silent: Sequence[demo_reach.Pair]) -> None:
    if silent:
        few = ", ".join(f"{source} → {target}" for source, target in silent[:5])
        raise LabError(f"{len(silent)} pairs got no echo reply: {few}")


def _reachable_again(this: _Run, pod: Pod, others: Sequence[Pod]) -> None:
    """`pod` with all the others, both ways."""
    for other in others:
        pairs = demo_reach.ordered_pairs([pod.addresses, other.addresses])
        _no_silence(demo_reach.unreachable(this.netns_of(), pairs))


def _sandbox_killed(this: _Run, announcements: demo_reach.Announcements) -> None:
    """The sandbox dies without a DEL; the same pod gets another, and the DEL of the first comes late, as kubelet does it."""
    pod, others = this.pods[3], this.pods[:3] + this.pods[4:]
    with this.show.step(
        f"the sandbox of {pod.name} killed, the same pod in a new one, the old one's DEL late"
    ) as remarks:
        old_id, old_netns, old_addresses = pod.container_id, pod.netns, pod.addresses
        demo_netns.remove(old_netns)
        pod.new_sandbox()
        announcements.seen.clear()
        this.attach(pod)
        if pod.addresses != old_addresses:
            raise LabError(f"{pod.name} had {old_addresses}, its new sandbox got {pod.addresses}")
        if missing := announcements.missing(pod.addresses):
            raise LabError(f"its addresses were not announced again: {', '.join(missing)}")
        this.detach(pod, container_id=old_id, netns="")
        _reachable_again(this, pod, others)
        held = {str(lease["address"]) for lease in this.system.get("leases") if lease["podUID"] == pod.uid}
        if {address.partition("/")[0] for address in held} != set(pod.addresses):
            raise LabError(f"{pod.name} has {pod.addresses}, the lease log says {sorted(held)}")
        remarks.append(f"kept {' and '.join(pod.addresses)}")


def _pod_replaced(this: _Run, announcements: demo_reach.Announcements) -> None:
    """The pod is deleted; another of the same name, with another UID, comes."""
    pod, others = this.pods[4], this.pods[:4] + this.pods[5:]
    with this.show.step(f"{pod.name} deleted and made again under the same name") as remarks:
        this.folder.remove_pod(pod.name)
        this.system.sync()
        this.detach(pod)
        demo_netns.remove(pod.netns)
        pod.uid = str(uuid.uuid4())
        this.folder.pod(pod.name, pod.uid, pod.node)
        this.system.sync()
        pod.new_sandbox()
        announcements.seen.clear()
        this.attach(pod)
        if missing := announcements.missing(pod.addresses):
            raise LabError(f"not announced: {', '.join(missing)}")
        _reachable_again(this, pod, others)
        remarks.append(f"has {' and '.join(pod.addresses)}")


def _table(this: _Run) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("pod", "node", "interface", "addresses"):
        table.add_column(column, no_wrap=True)
    table.add_column("attach ms", justify="right")
    for pod in this.pods:
        table.add_row(
            f"{demo_manifests.NAMESPACE}/{pod.name}",
            pod.node,
            "eth0",
            "  ".join(pod.addresses),
            f"{pod.add_ms:.1f}",
        )
    this.show.console.print()
    this.show.console.print(table)
    this.show.console.print()


def _waterfall(this: _Run) -> None:
    """The trace of the attach whose time is the median, from the exec of the shim to the reply."""
    median = quantile(this.add_ms, 0.5)
    pod = min(this.pods, key=lambda pod: abs(pod.add_ms - median))
    with this.show.step(f"the trace of {pod.name}'s attach"):
        events = this.system.get("events")
        mine = [e for e in events if e.get("containerID") == pod.container_id and e.get("traceID")]
        if not mine:
            raise LabError(f"no event names the trace of container {pod.container_id}")
        text = this.system.cli("get", "traces", str(mine[0]["traceID"]))
    this.show.console.print()
    this.show.console.print(text, markup=False)
    this.show.console.print(
        f"ADD p50 {quantile(this.add_ms, 0.5):.1f} ms, p99 {quantile(this.add_ms, 0.99):.1f} ms"
        f" over {len(this.add_ms)} attaches, exec to exit\n"
    )


def _all_detached(this: _Run) -> None:
    with this.show.step("all pods deleted and detached") as remarks:
        for pod in this.pods:
            this.folder.remove_pod(pod.name)
        this.system.sync()
        for pod in this.pods:
            this.detach(pod)
        remarks.append(f"DEL p50 {quantile(this.del_ms, 0.5):.1f} ms")
    with this.show.step("no lease, attachment or link is left") as remarks:
        deadline = time.monotonic() + _RELEASE_TIMEOUT_S
        # A DEL answers when its release is in the node's journal; the log has it a moment later.
        while (leases := this.system.get("leases")) and time.monotonic() < deadline:
            time.sleep(0.1)
        this.leaks += [f"lease {lease['address']} of {lease['podName']}" for lease in leases]
        this.leaks += [f"attachment {item['container_id']}" for item in this.system.get("attachments")]
        for node in NODES:
            extra = demo_netns.links(PLACE.netns(node)) - {"lo", "eth1"}
            this.leaks += [f"link {link} on {node}" for link in sorted(extra)]
        for pod in this.pods:
            this.leaks += [
                f"link {link} in {pod.name}" for link in sorted(demo_netns.links(pod.netns) - {"lo"})
            ]
        remarks.append(f"{len(this.leaks)} left")


def _end(this: _Run, before: Machine) -> None:
    """Stops the system, removes the lab, and counts what did not go by itself."""
    with this.show.step("orbweaver stopped, namespaces removed") as remarks:
        this.system.stop()
        this.leaks += [f"process {mark.pid}" for mark in demo_system.marked(PLACE.root)]
        this.leaks += [f"file {path}" for path in sorted(this.system.temporary.rglob("*"))]
        expected = {PLACE.netns(name).name for name in (SWITCH, *NODES)} | {
            pod.netns.name for pod in this.pods
        }
        this.leaks += [
            f"namespace {p.name}" for p in demo_netns.named(PLACE.prefix) if p.name not in expected
        ]
        PLACE.clear()
        this.leaks += before.new_in(Machine.look())
        remarks.append(f"{len(this.leaks)} leaks")
    for leak in this.leaks:
        this.show.console.print(f"[red]✗ left behind[/]: {leak}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
