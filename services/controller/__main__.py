"""`python -m services.controller --config FILE`: the bridge between the Kubernetes API, or a folder of manifests, and the bus.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

from services.controller.app import App
from services.controller.defaults import default_objects
from services.controller.leases import AllocatorLeases
from services.controller.replica import Alone, Replica
from services.controller.rules import AdmissionRules
from services.controller.source import FolderSource
from services.controller.watched import table
from shared import service
from shared.bus import Bus
from shared.exit import STOPPED
from shared.settings import ControllerSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import KubernetesMetrics


@contextlib.asynccontextmanager
async def opening(settings: ControllerSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[Replica]:
    if settings.source == "kubernetes":
        async with opening_cluster(settings, bus, telemetry) as replica:
            yield replica
        return
    if not settings.manifests:
        raise ValueError("source manifests: `manifests` must name the folder")
    source = FolderSource(Path(settings.manifests), AllocatorLeases(bus), AdmissionRules)
    app = App(settings, bus, source, telemetry)
    yield Replica(bus, settings.replica, app, Alone(settings.replica))


@contextlib.asynccontextmanager
async def opening_cluster(
    settings: ControllerSettings, bus: Bus, telemetry: Telemetry
) -> AsyncGenerator[Replica]:
    # only where there is a cluster: the client costs 40 MiB
    from services.controller import cluster
    from services.controller.bridge import Bridge
    from services.controller.election import LeaseElection
    from services.controller.kube import KubeClient
    from services.controller.leaving import Leaving, own_namespace

    dice = random.random
    default_objects(os.environ, "")  # a mistake in them is told at the start
    client = await KubeClient.open(settings.kubeconfig)
    try:
        namespace, _, name = settings.cilium_config.partition("/")
        rows = table(settings.installation_namespace, (namespace, name))
        source = cluster.ClusterSource(client, rows, dice, cluster.first_version())
        identity = f"{settings.replica}_{uuid.uuid4().hex[:12]}"
        place = (settings.installation_namespace, settings.lease)
        election = LeaseElection(client, *place, identity, dice, forgotten=source.relist)
        metrics = KubernetesMetrics(
            telemetry.meter,
            requests=lambda: client.requests,
            held=source.held,
            relists=source.relists,
            failing=source.failing,
        )
        bridge = Bridge(
            settings,
            bus,
            client,
            source.told,
            leads=lambda: election.leads,
            dice=dice,
            metrics=metrics,
            published=lambda: 0 if source.told.waiting else app.published(),
            may_sync=source.wake,
            refused=lambda family: app.refused(family),
            environment=os.environ,
        )
        app = App(settings, bus, source, telemetry, may_sync=lambda: bridge.may_sync, more_facts=bridge.facts)
        leaving = Leaving(client, own_namespace())
        source.told.listen(leaving.on_change)
        yield Replica(bus, settings.replica, app, election, others=(bridge.run, leaving.run))
    finally:
        await client.close()


async def leave(settings: ControllerSettings) -> None:
    """What is left to do by a process that was asked to stop, whether or not it ever reached the bus."""
    from services.controller.kube import KubeClient
    from services.controller.leaving import Leaving, own_namespace

    client = await KubeClient.open(settings.kubeconfig)
    try:
        await Leaving(client, own_namespace()).leave()
    finally:
        await client.close()


def main() -> int:
    read: list[ControllerSettings] = []

    def instance_of(settings: ControllerSettings) -> tuple[str, str]:
        read.append(settings)
        return settings.replica, ""

    code = service.main("controller", ControllerSettings, instance_of, opening)
    if code == STOPPED and read and read[0].source == "kubernetes":
        asyncio.run(leave(read[0]))
    return code


if __name__ == "__main__":
    sys.exit(main())
