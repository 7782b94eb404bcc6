"""Our services beside a cluster of the lab, as processes: hub, allocators and controller on the test machine, a leaf and an agent on every
node. What `kubectl apply -k` makes of images is here started at once, so that a test can stop, kill and mislead each part.

    with Cluster(directory) as cluster, System(cluster) as system:
        system.apply(pool("v4", "10.232.0.0/16", "10.232.100.1-10.232.100.250"))

Owns processes, credentials and the nodes' CNI configuration. Must not know what is tested.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from cni.install import default_conflist, install
from services.bus.config import SYSTEM_USER
from services.standalone.natsconf import hub_config, leaf_config
from services.standalone.system import LOOPBACK, complete_credentials
from shared import settings, subjects
from tests.support.kube_cluster import Cluster, await_true
from tests.support.kube_node import Node
from tests.support.kube_ours import ADDRESSES_V4, ADDRESSES_V6, OurSystem
from tests.support.kube_process import Program
from tests.support.kube_question import Questions
from tests.support.kube_workload import pool
from tests.support.nats import BINARY as NATS_SERVER

ROOT = Path(__file__).parents[2]
_CLIENTS, _LEAVES, _HTTP = 4222, 7422, 9464
_CONFLIST = Path("/etc/cni/net.d/10-orbweaver.conflist")
ALLOCATORS = 2
CONTROLLER = "orbweaver-controller"
"""The user that the controller is to the API server."""


class System(OurSystem):
    """`fake_time` gives nodes a wrong clock, in libfaketime's form (`+3600`), by node name: their agents and what they start see it."""

    def __init__(self, cluster: Cluster, *, fake_time: Mapping[str, str] | None = None) -> None:
        self.cluster = cluster
        self.directory = cluster.directory / "system"
        self.directory.mkdir()
        self._fake_time = fake_time or {}
        self._names = tuple(node.name for node in cluster.nodes)
        self._credentials = complete_credentials(None, self._names)
        self.hub = self._hub()
        self.allocators = [self._allocator(number) for number in range(ALLOCATORS)]
        self.controller = self._service("controller", "controller-0", self._controller_settings())
        self.leaves = {node.name: self._leaf(node) for node in cluster.nodes}
        self.agents = {node.name: self._agent(node) for node in cluster.nodes}
        self.ask = Questions(self.tools_bus, self._names)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for program in (
            *self.agents.values(),
            self.controller,
            *self.allocators,
            *self.leaves.values(),
            self.hub,
        ):
            program.stop(kill=True)

    @property
    def programs(self) -> dict[str, Program]:
        """By what they are and where."""
        ours = (self.hub, *self.allocators, self.controller)
        return {
            **{program.log.stem: program for program in ours},
            **{f"leaf of {name}": program for name, program in self.leaves.items()},
            **{f"agent of {name}": program for name, program in self.agents.items()},
        }

    def tools_bus(self, node: str = "") -> settings.BusSettings:
        """How a tool connects; to ask the services of a node, name it."""
        prefix = subjects.tools_inbox(node) if node else subjects.inbox("tools")
        return msgspec.structs.replace(self.hub_bus("tools"), inbox_prefix=prefix)

    def metrics(self, node: str = "") -> str:
        """What a scrape finds of the agent of a node, or of the controller."""
        address = LOOPBACK if node else self.cluster.gateway
        script = f"import urllib.request as u; print(u.urlopen('http://{address}:{_HTTP}/metrics').read().decode())"
        argv = [sys.executable, "-I", "-c", script]
        if node:
            return self.cluster.node(node).run(*argv).stdout
        return subprocess.run(argv, capture_output=True, check=True, text=True).stdout

    def install_cni(self, parent: str = "eth1", *, multi_network: bool = True) -> None:
        """Shim, credential and network configuration on every node."""
        for node in self.cluster.nodes:
            install(
                node.path("/opt/cni/bin"),
                server=f"{LOOPBACK}:{_CLIENTS}",
                user="shim",
                password=self._credentials.nodes[node.name].shim,
                node=node.name,
                subject=subjects.cni(node.name),
                netns="/proc/1/ns/net",
                conflist=node.path(str(_CONFLIST)),
                conflist_text=default_conflist(parent=parent, multi_network=multi_network),
            )

    def remove_cni(self) -> None:
        for node in self.cluster.nodes:
            node.path(str(_CONFLIST)).unlink(missing_ok=True)

    def _start(self) -> None:
        self.cluster.server.kubectl("apply", "-k", str(ROOT / "deploy" / "crds"))
        self.cluster.server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self.hub.start()
        for program in (*self.leaves.values(), self.controller, *self.allocators, *self.agents.values()):
            program.start()
        self.apply(
            pool("underlay-v4", "10.232.0.0/16", ADDRESSES_V4, gateway="10.232.0.1"),
            pool("underlay-v6", "fd00:232::/64", ADDRESSES_V6, gateway="fd00:232::1"),
        )
        self.install_cni()
        await_true("all services run", self._all_run)
        self.cluster.await_ready()

    def _all_run(self) -> bool:
        for program in self.programs.values():
            program.assert_running()
        return True

    def _hub(self) -> Program:
        store = self.directory / "jetstream"
        text = hub_config(
            client_port=_CLIENTS,
            leafnodes_port=_LEAVES,
            store=str(store),
            credentials=self._credentials,
            nodes=self._names,
        )
        # Standalone all is on loopback; here nodes come from the management network.
        config = self._write("hub.conf", text.replace(f'"{LOOPBACK}:', f'"{self.cluster.gateway}:'))
        return Program([str(NATS_SERVER), "--config", str(config)], self.directory / "hub.log")

    def _leaf(self, node: Node) -> Program:
        text = leaf_config(
            node=node.name,
            client_port=_CLIENTS,
            hub_leafnodes_port=_LEAVES,
            credentials=self._credentials.nodes[node.name],
        )
        hub = f"@{LOOPBACK}:{_LEAVES}"
        assert hub in text
        config = self._write(
            f"leaf-{node.name}.conf", text.replace(hub, f"@{self.cluster.gateway}:{_LEAVES}")
        )
        return node.program("leaf", [str(NATS_SERVER), "--config", str(config)])

    def _allocator(self, number: int) -> Program:
        replica = f"allocator-{number}"
        system = msgspec.structs.replace(
            self.hub_bus("tools"), user=SYSTEM_USER, password=self._credentials.system
        )
        return self._service(
            "allocator",
            replica,
            settings.AllocatorSettings(
                replica=replica,
                bus=self.hub_bus("allocator"),
                system=msgspec.structs.replace(system, inbox_prefix=subjects.inbox(SYSTEM_USER)),
                mark_file=str(self.directory / "leases.json"),
            ),
        )

    def _controller_settings(self) -> settings.ControllerSettings:
        return settings.ControllerSettings(
            replica="controller-0",
            bus=self.hub_bus("controller"),
            telemetry=settings.TelemetrySettings(http_address=f"{self.cluster.gateway}:{_HTTP}"),
            source="kubernetes",
            kubeconfig=str(self._controller_kubeconfig()),
        )

    def _controller_kubeconfig(self) -> Path:
        """An identity of its own, so that the audit log tells its requests from the test's."""
        server = self.cluster.server
        server.pki.issue(CONTROLLER, CONTROLLER, groups=("system:masters",))
        return server.write_kubeconfig(self.directory / "controller.kubeconfig", certificate=CONTROLLER)

    def _agent(self, node: Node) -> Program:
        config = settings.AgentSettings(
            node=node.name,
            bus=settings.BusSettings(
                servers=(f"nats://{LOOPBACK}:{_CLIENTS}",),
                user="agent",
                password=self._credentials.nodes[node.name].agent,
                inbox_prefix=subjects.node_inbox(node.name, "agent"),
            ),
            telemetry=settings.TelemetrySettings(http_address=f"{LOOPBACK}:{_HTTP}"),
            state="/var/lib/orbweaver",
        )
        argv = _argv("agent", self._write(f"agent-{node.name}.json", config))
        node.path("/var/lib/orbweaver").mkdir(mode=0o700)
        wrong = self._fake_time.get(node.name)
        if not wrong:
            return node.program("agent", argv)
        # What a wrong clock of a machine is: the wall clock alone, never the monotonic one.
        environment = {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return node.program("agent", ["faketime", "-f", wrong, *argv], environment)

    def _service(self, name: str, instance: str, config: msgspec.Struct) -> Program:
        return Program(
            _argv(name, self._write(f"{instance}.json", config)), self.directory / f"{instance}.log"
        )

    def hub_bus(self, identity: str) -> settings.BusSettings:
        """How a service of ours connects that runs on the test machine."""
        return settings.BusSettings(
            servers=(f"nats://{self.cluster.gateway}:{_CLIENTS}",),
            user=identity,
            password=self._credentials.hub[identity],
            inbox_prefix=subjects.inbox(identity),
        )

    def _write(self, name: str, content: str | msgspec.Struct) -> Path:
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else msgspec.json.encode(content))
        path.chmod(0o600)
        return path


def _argv(service: str, config: Path) -> list[str]:
    return [sys.executable, "-P", "-m", f"services.{service}", "--config", str(config)]
