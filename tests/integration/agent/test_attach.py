"""ADD, DEL and what may come between them, on a real agent: repeated, cancelled, late, refused, undone."""

from __future__ import annotations

import asyncio
import secrets
import time

import msgspec

from shared.contracts.attach import AttachCompleted, AttachFailed, Detached
from shared.contracts.ipam import Allocate, Allocated, Grant, Refused, Route
from tests.integration.agent.conftest import Make, Node, forgotten, native, until


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_add_and_del(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            result = (await node.call("ADD", "c1", path)).result
            assert result["cniVersion"] == "1.0.0"
            (interface,) = result["interfaces"]
            assert interface["name"] == "eth0"
            assert interface["sandbox"] == path
            addresses = {"10.6.0.9/16", "fd00:6::9/64"}
            assert {ip["address"] for ip in result["ips"]} == node.addresses(pod) == addresses
            assert {route["gw"] for route in result["routes"]} == {"10.6.0.1", "fd00:6::1"}
            assert node.lab.ping(pod, "10.6.0.1")
            assert node.lab.ping(pod, "fd00:6::1")
            (shown,) = await node.attachments(check=True)
            assert (shown.state, shown.differences, shown.parent) == ("completed", (), "eth1")
            assert (await node.call("CHECK", "c1", path)).exit_code == 0

            assert (await node.call("DEL", "c1", path)).body == b""
            assert node.links(pod) == set()
            await forgotten(node)
            (release,) = await node.releases()
            assert (release.container_id, release.ifname, release.generation) == ("c1", "eth0", 9)
            assert release.attempt == node.allocator.asked[0].attempt
            assert release.cooldown_s == 0
            assert (await node.call("DEL", "c1", path)).exit_code == 0
            assert [type(event) for event in await node.events()] == [AttachCompleted, Detached]

    asyncio.run(work())


def test_a_repeated_attempt_joins_the_running_one(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            path = node.lab.path(node.lab.pod())
            gate = asyncio.Event()
            node.allocator.before = lambda _: gate.wait()
            attempt = secrets.token_hex(16)
            calls = [asyncio.create_task(node.call("ADD", "c1", path, attempt=attempt)) for _ in range(3)]
            await until(lambda: node.allocator.asked, "the allocator is asked")
            await asyncio.sleep(0.1)
            gate.set()
            answers = [(await call).result for call in calls]
            assert answers[0] == answers[1] == answers[2]
            assert len(node.allocator.asked) == 1

    asyncio.run(work())


def test_another_attempt_waits_and_gets_the_same(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            answers = await asyncio.gather(*(node.call("ADD", "c1", path) for _ in range(3)))
            assert answers[0].result == answers[1].result == answers[2].result
            assert len(node.allocator.asked) == 1
            again = await node.call("ADD", "c1", path, native(cniVersion="0.4.0"))
            assert again.result["ips"][0]["version"] == "4"
            assert [type(event) for event in await node.events()] == [AttachCompleted]

            node.lab.run(pod, "ip", "link", "del", "eth0")
            repaired = (await node.call("ADD", "c1", path)).result
            assert repaired["interfaces"] == answers[0].result["interfaces"], "the same MAC"
            assert node.links(pod) == {"eth0"}

    asyncio.run(work())


def test_a_del_ends_a_running_add(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            gate = asyncio.Event()
            node.allocator.before = lambda _: gate.wait()
            adding = asyncio.create_task(node.call("ADD", "c1", path))
            await until(lambda: node.allocator.asked, "the allocator is asked")
            assert (await node.call("DEL", "c1", path)).exit_code == 0
            assert (await adding).error["code"] == 117
            gate.set()
            assert node.links(pod) == set()
            await forgotten(node)
            (release,) = await node.releases()
            assert (release.generation, release.attempt) == (0, node.allocator.asked[0].attempt)

    asyncio.run(work())


def test_a_del_in_the_middle_of_the_kernel_part_leaves_nothing(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pods = node.lab.pods(8)

            async def one(number: int, pod: str) -> None:
                path = node.lab.path(pod)
                adding = asyncio.create_task(node.call("ADD", f"c{number}", path))
                await asyncio.sleep(0.0015 * number)
                assert (await node.call("DEL", f"c{number}", path)).exit_code == 0
                answer = await adding
                assert answer.exit_code == 0 or answer.error["code"] == 117

            await asyncio.gather(*(one(number, pod) for number, pod in enumerate(pods)))
            # an ADD that was started after its DEL was decided may stand; the next DEL ends it
            for number, pod in enumerate(pods):
                assert (await node.call("DEL", f"c{number}", node.lab.path(pod))).exit_code == 0
                assert node.links(pod) == set()
            await forgotten(node)

    asyncio.run(work())


def test_an_add_that_began_before_a_del_is_refused(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            before_ns = boottime_ns()
            assert (await node.call("DEL", "c1", path)).exit_code == 0
            assert (await node.call("ADD", "c1", path, start_ns=before_ns)).error["code"] == 117
            assert node.links(pod) == set()
            assert not node.allocator.asked
            assert (await node.call("ADD", "c1", path)).exit_code == 0
            assert (await node.call("DEL", "c1", path, start_ns=before_ns)).exit_code == 0
            assert node.links(pod) == {"eth0"}, "a DEL of before this ADD is not about it"

    asyncio.run(work())


def test_a_failure_is_undone_and_the_retry_has_the_same_address(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            node.allocator.change = _unreachable_route
            error = (await node.call("ADD", "c1", path)).error
            assert error["code"] == 115
            assert "10.99.0.0/16" in error["msg"]
            assert node.links(pod) == set()
            (shown,) = await node.attachments()
            assert (shown.state, shown.generation) == ("intent", 9)
            failed = (await node.events())[-1]
            assert isinstance(failed, AttachFailed)
            assert failed.error == "kernel_refused"
            node.allocator.change = None
            result = (await node.call("ADD", "c1", path)).result
            assert result["interfaces"][0]["mac"] == shown.mac
            await node.call("DEL", "c1", path)
            await forgotten(node)
            (release,) = await node.releases()
            assert (release.generation, release.attempt) == (9, node.allocator.asked[1].attempt)

    asyncio.run(work())


def _unreachable_route(reply: Allocated) -> Allocated:
    grant = reply.grants[0]
    route = Route(dst="10.99.0.0/16", gw="0.0.0.0")
    changed = Grant(
        ifname=grant.ifname,
        family=4,
        address=grant.address,
        pool=grant.pool,
        generation=grant.generation,
        routes=(route, Route(dst="10.99.0.0/16", gw="10.6.0.77")),
    )
    return Allocated(
        attempt=reply.attempt, pod_uid=reply.pod_uid, grants=(changed,), mark=reply.mark, term=reply.term
    )


def test_refusals_of_the_allocator_reach_the_runtime(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)

            def refuse(name: str) -> None:
                node.allocator.before = lambda command: Refused(
                    attempt=command.attempt, error=name, message=f"because of {name}"
                )

            refuse("pool_exhausted")
            error = (await node.call("ADD", "c1", path)).error
            assert (error["code"], error["msg"]) == (101, "because of pool_exhausted")
            refuse("from_a_later_version")
            assert (await node.call("ADD", "c1", path)).error["code"] == 199
            refuse("log_unsafe")
            asked = len(node.allocator.asked)
            error = (await node.call("ADD", "c1", path, deadline_s=1.7)).error
            assert error["code"] == 11
            assert "because of log_unsafe" in error["msg"]
            repeated = node.allocator.asked[asked:]
            assert len(repeated) > 3
            assert len({command.attempt for command in repeated}) == 1
            assert all(0 < command.ttl_ms < 1000 for command in repeated)
            assert node.links(pod) == set()

    asyncio.run(work())


def test_an_address_given_back_a_moment_ago_is_waited_for(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pods = node.lab.pods(2)
            await node.call("ADD", "c1", node.lab.path(pods[0]))
            exhausted = Refused(attempt="", error="pool_exhausted", message="all used")

            def refuse(command: Allocate) -> Refused | None:
                freed = len(node.allocator.asked) > 3
                return None if freed else msgspec.structs.replace(exhausted, attempt=command.attempt)

            node.allocator.before = refuse
            assert (await node.call("ADD", "c2", node.lab.path(pods[1]))).error["code"] == 101
            assert len(node.allocator.asked) == 2
            await node.call("DEL", "c1", node.lab.path(pods[0]))
            assert (await node.call("ADD", "c2", node.lab.path(pods[1]))).exit_code == 0
            assert len(node.allocator.asked) == 4

    asyncio.run(work())


def test_an_agent_that_is_stopped_leaves_its_calls_to_the_next(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            path = node.lab.path(node.lab.pod())
            gate = asyncio.Event()
            node.allocator.before = lambda _: gate.wait()
            adding = asyncio.create_task(node.call("ADD", "c1", path))
            await until(lambda: node.allocator.asked, "the allocator is asked")
            began = time.monotonic()
            assert await asyncio.to_thread(node.service.stop) == 0
            assert time.monotonic() - began < 3
            gate.set()
            await node.start()
            assert (await adding).exit_code == 0

    asyncio.run(work())


def test_allocator_away_and_back(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            path = node.lab.path(node.lab.pod())
            await node.remove_allocator()
            adding = asyncio.create_task(node.call("ADD", "c1", path))
            await asyncio.sleep(0.3)
            status = await node.call("STATUS", configuration=native(cniVersion="1.1.0"))
            assert status.error["code"] == 50
            assert "allocator" in status.error["msg"]
            await node.serve_allocator()
            assert (await adding).exit_code == 0
            assert (await node.call("STATUS", configuration=native(cniVersion="1.1.0"))).body == b""

    asyncio.run(work())


def test_two_interfaces_and_one_default_route(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            first = (await node.call("ADD", "c1", path)).result
            second = (await node.call("ADD", "c1", path, ifname="net1")).result
            assert {route["dst"] for route in first["routes"]} == {"0.0.0.0/0", "::/0"}
            assert second["routes"] == []
            assert {ip["gateway"] for ip in second["ips"]} == {"10.6.0.1", "fd00:6::1"}
            defaults = [route["dev"] for route in node.lab.ip(pod, "route") if route["dst"] == "default"]
            assert defaults == ["eth0"]
            assert (await node.call("CHECK", "c1", path, ifname="net1")).exit_code == 0
            await node.call("DEL", "c1", path, ifname="net1")
            assert node.links(pod) == {"eth0"}
            assert (await node.call("CHECK", "c1", path)).exit_code == 0

    asyncio.run(work())


def test_a_network_by_name(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            pod = node.lab.pod()
            path = node.lab.path(pod)
            named = {
                "cniVersion": "1.0.0",
                "name": "fast",
                "type": "orbweaver",
                "network": "kube-system/fast",
            }
            assert (await node.call("ADD", "c1", path, named)).error["code"] == 112
            node.allocator.networks = {
                "kube-system/fast": '{"cniType":"macvlan","macvlan":{"master":["eth1"],"mtu":1400}}'
            }
            await node.call("ADD", "c1", path, named)
            (link,) = [link for link in node.lab.ip(pod, "link") if link["ifname"] == "eth0"]
            assert link["mtu"] == 1400
            assert node.allocator.asked[-1].interfaces[0].network == "kube-system/fast"

    asyncio.run(work())


def test_pods_are_told_to_the_allocator(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            path = node.lab.path(node.lab.pod())
            arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u1"
            await node.call("ADD", "c1", path, headers={"Cni-Args": arguments})
            (asked,) = node.allocator.asked
            assert (asked.pod_namespace, asked.pod_name, asked.pod_uid) == ("shop", "web-1", "u1")
            (shown,) = await node.attachments()
            assert (shown.pod_namespace, shown.pod_name, shown.pod_uid) == ("shop", "web-1", "u1")
            completed = (await node.events())[0]
            assert isinstance(completed, AttachCompleted)
            assert (completed.pod_name, completed.trace_id) == ("web-1", shown.trace_id)

    asyncio.run(work())


def test_one_trace_for_each_call(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            path = node.lab.path(node.lab.pod())
            start_ns = boottime_ns() - 5_000_000
            parent = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
            await node.call("ADD", "c1", path, start_ns=start_ns, headers={"traceparent": parent})

            async def complete() -> bool:
                return any(span.name == "cni ADD" for span in await node.spans())

            await until(complete, "the spans are published")
            spans = [span for span in await node.spans() if span.trace_id == "ab" * 16]
            (root,) = [span for span in spans if span.name == "cni ADD"]
            assert (root.service, root.parent_id) == ("shim", "cd" * 8)
            names = [span.name for span in sorted(spans, key=lambda span: span.start_ns)]
            assert names[0] in ("cni ADD", "shim.start")
            for name in (
                "shim.start",
                "journal.intent",
                "allocate",
                "link.create",
                "journal.complete",
                "reply",
            ):
                assert name in names
            assert len(names) <= 11
            for span in spans:
                assert span is root or span.parent_id == root.span_id
                assert root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns
            assert root.end_ns - root.start_ns > 5_000_000
            assert "ab" * 16 in node.allocator.headers[0]["traceparent"]

    asyncio.run(work())


async def scrape(node: Node) -> dict[str, float]:
    http = node.service.log.read_text().partition('"http":"')[2].partition('"')[0]
    host, _, port = http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    text = (await reader.read()).decode().partition("\r\n\r\n")[2]
    writer.close()
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_the_metrics_tell_how_long_an_add_waited_for_its_turn(make: Make) -> None:
    async def refuse_slowly(command: Allocate) -> Refused:
        await asyncio.sleep(0.3)
        return Refused(attempt=command.attempt, error="no_pool", message="none")

    async def work() -> None:
        async with make as node:
            node.allocator.before = refuse_slowly
            pod = node.lab.pod()
            path = node.lab.path(pod)
            idle = native(type="coordinator", mode="disable", prevResult={"cniVersion": "1.0.0", "ips": []})
            assert (await node.call("ADD", "c1", path, idle, name="coordinator")).exit_code == 0
            assert (await node.call("ADD", "c1", path, native(mastr="eth1"))).error["code"] == 7
            answers = await asyncio.gather(*(node.call("ADD", "c1", path) for _ in range(2)))
            assert [answer.error["code"] for answer in answers] == [108, 108]
            found = await scrape(node)
            prefix = "spiderpool_ipam_allocation"
            # Those of the idle plugin and with the wrong key asked for no address.
            assert found[f"{prefix}_counts_total"] == 2
            assert found[f"{prefix}_min_limit_duration_seconds"] < 0.2
            assert 0.2 < found[f"{prefix}_max_limit_duration_seconds"] < 2

    asyncio.run(work())


def test_a_foreign_message_is_answered_and_counted(make: Make) -> None:
    async def work() -> None:
        async with make as node:
            error = (await node.call("ADD", "c1", headers={"Orb-Version": "7"})).error
            assert "shim" in error["msg"]
            found = await scrape(node)
            assert found['orbweaver_messages_refused_total{family="orb.cni"}'] == 1
            assert found["orbweaver_attachments"] == 0
            assert (await node.call("ADD", "c1/../x", "", ifname="")).error["code"] == 4

    asyncio.run(work())
