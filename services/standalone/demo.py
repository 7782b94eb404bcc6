"""`orbweaver demo`: the main job from the first namespace to the last check that nothing is left.

Owns the order of what is shown. Must not know how any part of the system works: everything goes through the command line, the
installed CNI executable and the wire, as it does for a user.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from types import FrameType

import msgspec
from rich.console import Console
from rich.table import Table

from services.standalone import demo_manifests, demo_netns, demo_reach, demo_system
from services.standalone.demo_netns import LabError
from services.standalone.demo_place import Machine
from services.standalone.demo_stage import NODES, PLACE, SWITCH, Pod, Show, Stage, Summary, quantile

PODS_PER_NODE = 10
_RELEASE_TIMEOUT_S = 10.0


def run() -> int:
    """Shows the main job. Returns 0 if every pod reached every other and nothing is left, 1 if not, 2 if it could not begin."""
    console = Console(
        highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120
    )
    if os.geteuid() != 0:
        console.print("orbweaver demo makes network namespaces and links: run it as root.")
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    show = Show(console)
    count = len(NODES) * PODS_PER_NODE
    summary = Summary(pods=count, of_pairs=count * (count - 1) * 2)
    with PLACE.held(lambda: console.print("· another demo is running; waiting for its end")) as left:
        if left:
            console.print(
                f"· an earlier run was killed: ended or removed {left} processes and namespaces of it"
            )
        before = Machine.look()
        system = demo_system.System(PLACE.root, {node: PLACE.netns(node) for node in NODES}, console.width)
        this = Stage(show, summary, system, demo_manifests.Folder(system.manifests))
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


def _main_job(this: Stage) -> None:
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
    with step("orbweaver sync: every manifest is in force"):
        system.sync()
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


def _announced(this: Stage, announcements: demo_reach.Announcements, pods: Sequence[Pod]) -> None:
    with this.show.step("gratuitous ARP and unsolicited NA seen on the switch") as remarks:
        addresses = [address for pod in pods for address in pod.addresses]
        if missing := announcements.missing(addresses):
            raise LabError(f"never announced: {', '.join(missing)}")
        remarks.append(f"{len(addresses)} addresses")


def _reachable(this: Stage) -> None:
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


def _reachable_again(this: Stage, pod: Pod, others: Sequence[Pod]) -> None:
    """`pod` with all the others, both ways."""
    for other in others:
        pairs = demo_reach.ordered_pairs([pod.addresses, other.addresses])
        _no_silence(demo_reach.unreachable(this.netns_of(), pairs))


def _sandbox_killed(this: Stage, announcements: demo_reach.Announcements) -> None:
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


def _pod_replaced(this: Stage, announcements: demo_reach.Announcements) -> None:
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


def _table(this: Stage) -> None:
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


def _waterfall(this: Stage) -> None:
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


def _all_detached(this: Stage) -> None:
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
        this.leaks += [f"attachment {item['containerID']}" for item in this.system.get("attachments")]
        for node in NODES:
            extra = demo_netns.links(PLACE.netns(node)) - {"lo", "eth1"}
            this.leaks += [f"link {link} on {node}" for link in sorted(extra)]
        for pod in this.pods:
            this.leaks += [
                f"link {link} in {pod.name}" for link in sorted(demo_netns.links(pod.netns) - {"lo"})
            ]
        remarks.append(f"{len(this.leaks)} left")


def _end(this: Stage, before: Machine) -> None:
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
