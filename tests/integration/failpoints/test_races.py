"""What comes late, early, twice or to a system that is partly away, with a hundred pods at once over the whole system."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from services.agent.journal import Journal
from services.cli.system import System as Asked
from services.standalone import demo_exec, demo_netns
from services.standalone.assembly import HUB
from services.standalone.layout import Layout
from services.standalone.process import send
from shared import subjects
from shared.bus import Bus
from shared.contracts.codec import encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, AllocateReply, InterfaceRequest, Refused, Release
from shared.settings import AgentSettings, read_settings
from tests.integration.failpoints.stage import ALLOCATORS, NODES, Pod, Stage, agent, until

T = TypeVar("T")


@pytest.fixture
def attached(stage: Stage) -> Stage:
    """All pods attached, and known."""
    stage.new_pods()
    stage.attach_all()
    return stage


def with_new_sandbox(pod: Pod) -> Pod:
    return Pod(
        name=pod.name,
        node=pod.node,
        netns=pod.netns,
        occupied=pod.occupied,
        uid=pod.uid,
        container_id=secrets.token_hex(32),
    )


def together(stage: Stage, calls: list[tuple[str, Pod]]) -> list[demo_exec.Answer]:
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda call: stage.call(*call), calls))


async def of_another_boot(directory: Path) -> None:
    """What an agent finds in its journal after a reboot."""
    journal = Journal.open(directory)
    for entry in tuple(journal.entries.values()):
        await journal.put(msgspec.structs.replace(entry, boot_id="another"))
    await journal.close()


def failures(answers: list[demo_exec.Answer]) -> list[str]:
    return [answer.complaint() for answer in answers if not answer.ok]


def test_the_old_sandboxes_del_comes_with_the_new_ones_add_or_after_it(attached: Stage) -> None:
    """The same pods, new containers in the same namespaces, which the dead sandboxes' links have left."""
    old, addresses = attached.pods, {pod.name: pod.addresses for pod in attached.pods}
    for pod in old:
        with demo_netns.entered(pod.netns):
            demo_netns.run("ip", "link", "del", "eth0")
    attached.pods = [with_new_sandbox(pod) for pod in old]
    calls = [("ADD", pod) for pod in attached.pods] + [("DEL", pod) for pod in old[::2]]
    answers = together(attached, calls)
    assert not failures(answers)
    for pod, answer in zip(attached.pods, answers, strict=False):
        pod.result = answer.result()
        assert pod.addresses == addresses[pod.name], "a new sandbox keeps its pod's addresses"
    assert not failures(together(attached, [("DEL", pod) for pod in old]))
    attached.judge_attached()
    attached.delete_pods()
    attached.detach_all()


def test_dels_with_adds_still_under_way_leave_nothing(stage: Stage) -> None:
    """kubelet gives up an ADD and sends the DEL at once: whichever comes first, after the last DEL nothing is left."""
    stage.new_pods()
    answers = together(stage, [(verb, pod) for pod in stage.pods for verb in ("ADD", "DEL")])
    assert not failures(answers[1::2]), "a DEL succeeds whatever runs"
    refused = [answer.result()["code"] for answer in answers[::2] if not answer.ok]
    assert set(refused) <= {117}, "an ADD is either done or superseded"
    stage.delete_pods()
    stage.detach_all()


def test_dels_while_the_allocators_hang_are_settled_later(attached: Stage) -> None:
    attached.delete_pods()
    marks = [attached.kill(instance, signal.SIGSTOP) for instance in ALLOCATORS]
    try:
        answers = attached.storm("DEL")
        assert max(answer.duration_ms for answer in answers.values()) < 10_000
        for pod in attached.pods:
            assert not demo_netns.links(pod.netns) - pod.own_links
    finally:
        for mark in marks:
            assert mark is not None
            send(mark, signal.SIGCONT)
    attached.judge_detached()


def test_adds_and_their_dels_while_the_allocators_hang(stage: Stage) -> None:
    """The requests wait in the allocators while the DELs of their containers are served: what they get then, nobody takes."""
    stage.new_pods()
    marks = [stage.kill(instance, signal.SIGSTOP) for instance in ALLOCATORS]
    with ThreadPoolExecutor(len(stage.pods)) as threads:
        try:
            adding = [threads.submit(stage.call, "ADD", pod) for pod in stage.pods]
            until(
                lambda: len(stage.by_container()) == len(stage.pods), "the agents have begun with all of them"
            )
            assert not failures(together(stage, [("DEL", pod) for pod in stage.pods]))
        finally:
            for mark in marks:
                assert mark is not None
                send(mark, signal.SIGCONT)
        answers = [one.result() for one in adding]
    assert {answer.result()["code"] for answer in answers if not answer.ok} <= {117}
    stage.delete_pods()
    stage.detach_all()


def test_dels_while_the_hub_hangs_are_settled_later_even_by_another_agent(attached: Stage) -> None:
    attached.delete_pods()
    mark = attached.kill(HUB, signal.SIGSTOP)
    assert mark is not None
    try:
        answers = attached.storm("DEL")
        assert max(answer.duration_ms for answer in answers.values()) < 10_000
        attached.kill(agent(NODES[0]))
        assert not failures([attached.call("DEL", pod) for pod in attached.pods[:4]]), (
            "twice, and a new agent"
        )
    finally:
        send(mark, signal.SIGCONT)
    attached.settle()
    attached.judge_detached()


def test_a_namespace_path_that_another_pod_has_now(attached: Stage) -> None:
    """The old container's DEL, late, names a path behind which another pod's namespace is."""
    first, second = attached.pods[:2], attached.pods[2:4]
    path, other = second[0].netns, first[0]
    late = second[0]
    demo_netns.remove(path)
    demo_netns.add_pods([path.name])
    new = with_new_sandbox(other)
    new.netns = path
    assert not failures([attached.call("ADD", new)])
    new.result = attached.call("ADD", new).result()
    assert new.addresses == other.addresses
    assert not failures([attached.call("DEL", late)])
    assert demo_netns.links(path) >= {"lo", "eth0"}, "a DEL does not touch what is not its own"
    assert not failures([attached.call("DEL", new)])
    assert demo_netns.links(path) == {"lo"}
    attached.delete_pods()
    attached.detach_all()


def test_two_pods_of_one_name(attached: Stage) -> None:
    """Every pod is deleted and made again under its name before its runtime has detached it; on the other node, for half."""
    old = attached.pods
    turned = [old[i ^ 1] for i in range(len(old))]
    attached.pods = [
        Pod(name=pod.name, node=(other if i % 4 > 1 else pod).node, netns=pod.netns, occupied=pod.occupied)
        for i, (pod, other) in enumerate(zip(old, turned, strict=True))
    ]
    for pod, netns in zip(attached.pods, attached.lab.pods(len(old)), strict=True):
        pod.netns, pod.occupied = Path(attached.lab.path(netns)), False
    try:
        attached.new_pods()
        answers = together(attached, [("ADD", pod) for pod in attached.pods])
        assert not failures(answers)
        for pod, answer in zip(attached.pods, answers, strict=True):
            pod.result = answer.result()
        taken = {address for pod in old for address in pod.addresses}
        given = {address for pod in attached.pods for address in pod.addresses}
        assert not taken & given, "the first pods still run: nothing of theirs is given away"
        assert not failures(together(attached, [("DEL", pod) for pod in old]))
        until(lambda: len(attached.leases()) == 2 * len(old), "what the first pods had is given back")
        attached.judge_attached()
        attached.delete_pods()
        attached.detach_all()
    finally:
        for pod in attached.pods:
            attached.lab.remove(pod.netns.name)
        attached.pods = old


def test_a_reboot(attached: Stage) -> None:
    """Another boot id, all namespaces new: the runtime attaches new sandboxes, and reports the old ones dead when it likes."""
    node = NODES[0]
    old = attached.pods
    rebooted = [pod for pod in old if pod.node == node]
    others = [pod for pod in old if pod.node != node]
    for pod in rebooted:
        demo_netns.remove(pod.netns)
        demo_netns.add_pods([pod.netns.name])
    new = [with_new_sandbox(pod) for pod in rebooted]
    for pod in new:
        pod.occupied = False
    with attached.without(agent(node)):
        asyncio.run(of_another_boot(Layout(attached.system.state).node_state(node)))
    answers = together(attached, [("ADD", pod) for pod in new])
    assert not failures(answers)
    for pod, before, answer in zip(new, rebooted, answers, strict=True):
        pod.result = answer.result()
        assert pod.addresses == before.addresses
    assert not failures(together(attached, [("DEL", pod) for pod in rebooted]))
    attached.pods = [*new, *others]
    attached.judge_attached()
    attached.delete_pods()
    attached.detach_all()


def test_an_allocate_that_comes_after_its_release_is_refused(stage: Stage) -> None:
    """The agent's request was on its way while the DEL of its container was served to the end."""
    settings = read_settings(Layout(stage.system.state).settings_file(agent(NODES[0])), AgentSettings)
    release = Release(
        node=NODES[0], container_id="late", ifname="eth0", attempt="a" * 32, generation=0, reason="DEL"
    )
    late = Allocate(
        attempt=release.attempt,
        node=NODES[0],
        container_id="late",
        ifname="eth0",
        interfaces=(InterfaceRequest(ifname="eth0"),),
        ttl_ms=5000,
    )

    def as_agent(work: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
        async def connected(_: Asked) -> T:
            bus = await Bus.connect(settings.bus, "test")
            try:
                return await work(bus)
            finally:
                await bus.close()

        return stage.ask(connected)

    def give_back(attempt: str) -> None:
        payload = encode(msgspec.structs.replace(release, attempt=attempt))
        as_agent(lambda bus: bus.append(subjects.release(NODES[0]), payload))
        until(lambda: stage.queued() == 0, "the release is served")

    def ask(attempt: str) -> AllocateReply:
        payload = encode(msgspec.structs.replace(late, attempt=attempt))
        message = as_agent(lambda bus: bus.request(subjects.allocate(NODES[0]), payload, 5.0))
        return ALLOCATE_REPLY.decode(message.data)

    give_back(late.attempt)
    assert isinstance(ask(late.attempt), Refused), "a released attempt is remembered"
    other = "b" * 32
    assert not isinstance(ask(other), Refused), "another attempt of the container is not meant"
    give_back(other)
    until(lambda: not stage.leases(), "what nobody took is given back")
    assert isinstance(ask(other), Refused)
