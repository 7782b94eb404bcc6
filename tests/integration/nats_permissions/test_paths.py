"""What must pass: every request of the design finds its way and its answer back through real servers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from services.standalone.app import nats_server_binary
from services.standalone.natsconf import hub_config, leaf_config
from services.standalone.ports import choose_ports
from services.standalone.system import complete_credentials
from shared.bus import BusError, Message
from shared.subjects import (
    ALLOCATE_ALL,
    allocate,
    ask_agent,
    ask_service,
    attach,
    cni,
    inventory,
    release,
    span,
    token,
)
from tests.integration.nats_permissions.conftest import (
    NODES,
    OTHER,
    OWN,
    Island,
    connected,
    linked,
    make_streams,
)


async def _answer(message: Message) -> bytes:
    return message.subject.encode()


@pytest.mark.parametrize("name", ["n1", "a.b.example", "ünïcode_node", "with=equals", "_", "x" * 253])
def test_the_server_takes_the_configuration_of_any_node_name(tmp_path: Path, name: str) -> None:
    ports, credentials = choose_ports(None, (name,)), complete_credentials(None, (name,))
    store = str(tmp_path / 'a "quoted" söre $PATH')
    hub = hub_config(
        client_port=ports.hub,
        leafnodes_port=ports.hub_leafnodes,
        store=store,
        credentials=credentials,
        nodes=(name,),
    )
    leaf = leaf_config(
        node=name,
        client_port=ports.nodes[name].leaf,
        hub_leafnodes_port=ports.hub_leafnodes,
        credentials=credentials.nodes[name],
    )
    for config in (hub, leaf):
        path = tmp_path / "nats.conf"
        path.write_text(config)
        done = subprocess.run([nats_server_binary(), "-t", "-c", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_requests_and_answers_reach_their_own(island: Island) -> None:
    async def scenario() -> None:
        async with connected(
            island.of_hub("allocator"),
            *(island.of_node(identity, node) for node in NODES for identity in ("agent", "rdma", "shim")),
            *(island.of_tool(node) for node in ("", *NODES)),
        ) as (allocator, *rest):
            agents, rdmas, shims, tools = rest[0:6:3], rest[1:6:3], rest[2:6:3], rest[6:]
            await allocator.serve(ALLOCATE_ALL, _answer)
            await allocator.serve(f"{ask_service('allocator')}.allocator-0", _answer)
            for node, agent, rdma in zip(NODES, agents, rdmas, strict=True):
                await agent.serve(cni(node), _answer)
                await agent.serve(ask_agent(node), _answer)
                await agent.serve(f"{ask_service('agent')}.{token(node)}", _answer)
                await rdma.serve(f"orb.rdma.{token(node)}.claim", _answer)
                await rdma.serve(f"{ask_service('rdma')}.{token(node)}", _answer)
            # A subscription takes a moment to cross the link.
            await asyncio.sleep(0.3)
            asked = [(tools[0], f"{ask_service('allocator')}.allocator-0")]
            for node, agent, shim, tool in zip(NODES, agents, shims, tools[1:], strict=True):
                asked += [
                    (shim, cni(node)),
                    (agent, allocate(node)),
                    (agent, f"orb.rdma.{token(node)}.claim"),
                ]
                asked += [(tool, ask_agent(node)), (tool, f"{ask_service('agent')}.{token(node)}")]
                asked += [(tool, f"{ask_service('rdma')}.{token(node)}")]
            for bus, subject in asked:
                assert (await bus.request(subject, b"")).data == subject.encode()

    asyncio.run(scenario())


def test_what_a_node_reports_is_acknowledged_by_the_hubs_streams(island: Island) -> None:
    async def scenario() -> None:
        await make_streams(island)
        async with connected(island.of_node("agent", OTHER), island.of_node("rdma", OTHER)) as (agent, rdma):
            assert await agent.append(release(OTHER), b"released") == 1
            assert await agent.append(attach(OTHER), b"attached") == 1
            assert await rdma.append(inventory(OTHER), b"nothing") == 1
            await agent.publish(span("agent", OTHER), b"span")
            await rdma.publish(span("rdma", OTHER), b"span")
        async with connected(island.of_hub("tools")) as (tools,):
            while (await tools.stream_state("SPANS")).messages < 2:
                await asyncio.sleep(0.02)
            assert [message.data async for message in tools.read("ATTACH")] == [b"attached"]

    asyncio.run(scenario())


def test_a_node_serves_its_runtime_while_the_hub_is_away_and_links_again(island: Island) -> None:
    async def scenario() -> None:
        async with connected(island.of_node("agent", OWN), island.of_node("shim", OWN)) as (agent, shim):
            await agent.serve(cni(OWN), _answer)
            island.stop("hub")
            assert (await shim.request(cni(OWN), b"")).data == cni(OWN).encode()

    asyncio.run(scenario())
    config = (island.directory / "hub.conf").read_text()
    island.run("hub", config, island.ports.hub)
    asyncio.run(linked(island, "leaf-n1"))


def test_a_connection_outlives_a_restart_of_the_hub(island: Island) -> None:
    config = (island.directory / "hub.conf").read_text()

    async def scenario() -> None:
        async with connected(island.of_hub("allocator"), island.of_hub("webhook")) as (allocator, webhook):
            await allocator.serve("orb.ipam.query", _answer)
            island.stop("hub")
            island.run("hub", config, island.ports.hub)
            deadline = asyncio.get_running_loop().time() + 10
            while True:
                try:
                    answer = await webhook.request("orb.ipam.query", b"", 0.5)
                    break
                except BusError:
                    assert asyncio.get_running_loop().time() < deadline
                    await asyncio.sleep(0.05)
            assert answer.data == b"orb.ipam.query"

    asyncio.run(scenario())


def test_the_hub_syncs_before_it_acknowledges_and_opens_no_monitoring_port(island: Island) -> None:
    async def scenario() -> dict[str, object]:
        async with connected(island.of_hub("sys")) as (system,):
            return json.loads((await system.request("$SYS.REQ.SERVER.PING.VARZ", b"")).data)["data"]

    varz = asyncio.run(scenario())
    assert varz["jetstream"]["config"]["sync_always"] is True  # type: ignore[index]
    assert varz["http_port"] == 0 and varz["https_port"] == 0
