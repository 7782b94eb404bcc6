"""What a leading controller does beside the facts: adopts once, mirrors leases, and keeps what it writes in line with what it reads.

Owns which change makes whom look again. Must not know how anything is written.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from services.controller.adoption import Adopting
from services.controller.conflict import Conflicts
from services.controller.coordinator_writer import CoordinatorWriter, first_network
from services.controller.coverage import Coverage
from services.controller.defaults import default_objects
from services.controller.event import Notable, of_attach, of_disagreement
from services.controller.event_writer import EVENT, EventWriter
from services.controller.founding import found
from services.controller.ipam_writer import EndpointWriter, PoolWriter, SubnetWriter
from services.controller.kube import KubeClient
from services.controller.leases import AllocatorLeases
from services.controller.mark_writer import MARK, MarkWriter
from services.controller.mirror import Mirror
from services.controller.mirrored import MirroredAnswers
from services.controller.mirroring import Mirroring
from services.controller.nad import definition_name
from services.controller.network_writer import NetworkWriter
from services.controller.reflector import Change, Gone, Name
from services.controller.told import Told
from services.controller.typed import (
    COORDINATOR,
    ENDPOINT,
    NETWORK,
    POOL,
    SUBNET,
    Typed,
    decode,
)
from services.controller.watched import Watched
from services.controller.writing import Worker, Writing
from shared.bus import Bus, BusError, Follow, StreamMessage
from shared.contracts.attach import ATTACH_EVENT
from shared.contracts.codec import MessageError
from shared.contracts.disagreement import DISAGREEMENT_EVENT
from shared.limits import MARK_SHARE_INTERVAL_S
from shared.manifests.network import NetworkAttachmentDefinition, SpiderMultusConfig
from shared.settings import ControllerSettings
from shared.subjects import ASK_MIRRORED, ATTACH, DISAGREEMENTS, StreamSpec
from shared.subjects import MARK as MARK_SUBJECT
from shared.telemetry.metrics import KubernetesMetrics

log = structlog.get_logger()

RESYNC_S = 60.0
"""As Spiderpool's informers: so late a directory of CNI configurations that changed is noticed."""
CONFLICTS_TOLD_TURNS = 30
"""Every half hour: Events are kept for an hour."""
RETRY_S = 2.0
LISTED_POLL_S = 0.05


class Bridge:
    def __init__(
        self,
        settings: ControllerSettings,
        bus: Bus,
        client: KubeClient,
        told: Told,
        leads: Callable[[], bool],
        dice: Callable[[], float],
        metrics: KubernetesMetrics,
        published: Callable[[], int],
        may_sync: Callable[[], None],
        refused: Callable[[str], None],
        environment: Mapping[str, str],
    ) -> None:
        """`environment` names the objects to begin with. `published` is the sequence of FACTS once all that was listed is told; `may_sync` is called when it may be said so."""
        self._settings = settings
        self._environment = environment
        self._client = client
        self._leads = leads
        self._bus = bus
        self._told = told
        self._typed = Typed(told)
        self._writing = Writing(leads, dice, metrics)
        self._events = EventWriter(client, settings.replica, self._writing.add)
        self._mirroring = Mirroring(bus, self._on_leases)
        self._adopting = Adopting(bus, client, published, may_sync, self._events.note)
        namespace, _, name = settings.cilium_config.partition("/")
        self._pools = PoolWriter(
            client,
            self._typed,
            self._mirror,
            AllocatorLeases(bus),
            published,
            settings.allocated_ips_max,
            self._writing.add,
        )
        self._marks = MarkWriter(
            client,
            self._typed,
            settings.installation_namespace,
            self._writing.add,
            lambda: self._coverage.through,
            refused,
        )
        self._mirrored_answers = MirroredAnswers(client, lambda: self._marks.mirrored, refused)
        self._coverage = Coverage()
        self._workers: Mapping[str, Worker] = {
            MARK: self._marks,
            POOL: self._pools,
            SUBNET: SubnetWriter(client, self._typed),
            ENDPOINT: EndpointWriter(client, self._typed, self._mirror, lambda: self._coverage),
            NETWORK: NetworkWriter(client, self._typed),
            COORDINATOR: CoordinatorWriter(
                client,
                self._typed,
                settings.coordinator,
                Path(settings.cni_config_dir),
                (namespace, name),
                self._events.note,
            ),
            EVENT: self._events,
        }
        self._conflicts = Conflicts(self._typed, self._events.note)
        self._mirrored: Mirror | None = None
        self._following: list[Follow] = []
        told.listen(self._on_change)

    @property
    def may_sync(self) -> bool:
        """Whether adoption is over."""
        return self._adopting.over

    async def run(self) -> None:
        """For ever. Nothing is written before everything was listed: what is not known yet would seem to be absent."""
        while not self._told.synced:
            await asyncio.sleep(LISTED_POLL_S)
        self._look_at_all()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writing.run(self._workers))
            group.create_task(self._resync())
            group.create_task(self._found())
            group.create_task(self._follow(ATTACH, self._take_attach))
            group.create_task(self._follow(DISAGREEMENTS, self._take_disagreement))
            group.create_task(self._serve_allocators())
            group.create_task(self._keep_mirrored())
            if self._settings.adopt:
                await self._adopting.run()
            else:
                self._adopting.skip()
            group.create_task(self._mirroring.run())

    async def _found(self) -> None:
        directory = Path(self._settings.cni_config_dir)
        network = await asyncio.to_thread(first_network, directory)
        objects = default_objects(self._environment, network or "")
        await found(self._client, objects, self._leads)

    def _mirror(self) -> Mirror | None:
        return self._mirroring.mirror if self._mirroring.ready else None

    def _look_at_all(self) -> None:
        for kind in (POOL, SUBNET, ENDPOINT, NETWORK, COORDINATOR):
            for (namespace, name), _ in self._told.held(kind):
                self._writing.add(kind, namespace, name)
        for kind in (POOL, SUBNET, NETWORK):
            for (namespace, name), _ in self._told.held(kind):
                self._conflicts.look(kind, namespace, name)

    def _on_leases(self) -> None:
        mirror = self._mirroring.mirror
        if mirror is not self._mirrored:
            self._mirrored, self._coverage = mirror, Coverage()
            # what was written before, by whomever, may be about leases that are no more
            self._look_at_all()
        pods, pools = mirror.changed()
        self._coverage.folded(self._mirroring.incarnation, self._mirroring.sequence, pods)
        for namespace, name in pods:
            self._writing.add(ENDPOINT, namespace, name)
        for pool in pools:
            self._writing.add(POOL, "", pool)

    def _on_change(self, watched: Watched, change: Change) -> None:
        namespace, name = change.name
        if watched.kind in (POOL, SUBNET, NETWORK) and self._told.synced:
            self._conflicts.look(watched.kind, namespace, name)
        match watched.kind:
            case "SpiderIPPool":
                self._writing.add(POOL, "", name)
                self._look_at_subnets(change)
            case "SpiderMultusConfig":
                self._writing.add(NETWORK, namespace, name)
                self._look_at_namesakes(namespace, change)
            case "SpiderSubnet" | "SpiderEndpoint" | "SpiderCoordinator":
                self._writing.add(watched.kind, namespace, name)
            case "Pod" if isinstance(change, Gone):
                self._writing.add(ENDPOINT, namespace, name)
            case "NetworkAttachmentDefinition":
                self._look_at_owner(change.name, change)
            case "ServiceCIDR" | "IPPool" | "CiliumPodIPPool" | "ConfigMap":
                self._writing.add(COORDINATOR, "", self._settings.coordinator)
            case _:
                pass

    def _look_at_subnets(self, change: Change) -> None:
        spec = self._typed.pools.get(change.name[1])
        for (_, name), _ in self._told.held(SUBNET):
            if spec is None or name in set(self._typed.subnets_of(spec.subnet)):
                self._writing.add(SUBNET, "", name)

    def _look_at_namesakes(self, namespace: str, change: Change) -> None:
        """Who waited for the name of the one that came, changed or went."""
        config = decode(change.item, SpiderMultusConfig)
        for name in self._typed.namesakes(namespace, definition_name(config)) if config is not None else ():
            self._writing.add(NETWORK, namespace, name)

    def _look_at_owner(self, name: Name, change: Change) -> None:
        namespace, own = name
        self._writing.add(NETWORK, namespace, own)
        definition = decode(change.item, NetworkAttachmentDefinition)
        controller = definition.metadata.controller if definition is not None else None
        if controller is not None and controller.kind == NETWORK:
            self._writing.add(NETWORK, namespace, controller.name)

    async def _resync(self) -> None:
        for turn in itertools.count(1):
            await asyncio.sleep(RESYNC_S)
            if turn % CONFLICTS_TOLD_TURNS == 0:
                self._conflicts.tell_again()
            for (namespace, name), _ in self._told.held(NETWORK):
                self._writing.add(NETWORK, namespace, name)
            for (_, name), item in self._told.held(POOL):
                if self._pools.is_foreign(name, item.resource_version):
                    self._writing.add(POOL, "", name)
            self._writing.add(COORDINATOR, "", self._settings.coordinator)

    async def _follow(self, stream: StreamSpec, take: Callable[[StreamMessage], Awaitable[None]]) -> None:
        """From now on; what happened before was told by who led then."""
        first: int | None = None
        while True:
            try:
                if first is None:
                    first = (await self._bus.stream_state(stream.name)).last_sequence + 1
                self._following.append(await self._bus.follow(stream.name, take, start_sequence=first))
                return
            except BusError as error:
                log.debug("not followed yet", stream=stream.name, error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _serve_allocators(self) -> None:
        while True:
            try:
                await self._bus.listen(MARK_SUBJECT, self._marks.on_keep)
                await self._bus.serve(ASK_MIRRORED, self._mirrored_answers.on_ask)
                return
            except BusError as error:
                log.debug("allocators are not heard yet", error=str(error))
                await asyncio.sleep(RETRY_S)

    async def _keep_mirrored(self) -> None:
        while True:
            await asyncio.sleep(MARK_SHARE_INTERVAL_S)
            self._marks.look()

    async def _take_attach(self, message: StreamMessage) -> None:
        self._note(lambda: of_attach(ATTACH_EVENT.decode(message.data)))

    async def _take_disagreement(self, message: StreamMessage) -> None:
        self._note(lambda: of_disagreement(DISAGREEMENT_EVENT.decode(message.data)))

    def _note(self, read: Callable[[], Notable | None]) -> None:
        try:
            notable = read()
        except MessageError as error:
            log.warning("a message that is none", error=str(error))
            return
        if notable is not None:
            self._events.note(notable)

    def facts(self) -> dict[str, Any]:
        """Short words about the state."""
        return {
            "leases_mirrored": "true" if self._mirroring.ready else "false",
            "adoption_over": "true" if self.may_sync else "false",
            "writes_waiting": str(len(self._writing)),
        }
