"""`python -m services.controller --config FILE`: the bridge between the Kubernetes API, or a folder of manifests, and the bus.

The composition root: owns which parts are put together. Must not know what they do.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from services.controller.app import App
from services.controller.leases import AllocatorLeases
from services.controller.rules import AdmissionRules
from services.controller.source import FolderSource
from services.controller.watched import table
from shared import service
from shared.bus import Bus
from shared.settings import ControllerSettings
from shared.telemetry import Telemetry
from shared.telemetry.metrics import KubernetesMetrics


@contextlib.asynccontextmanager
async def opening(settings: ControllerSettings, bus: Bus, telemetry: Telemetry) -> AsyncGenerator[App]:
    if settings.source == "kubernetes":
        async with opening_cluster(settings, bus, telemetry) as app:
            yield app
        return
    if not settings.manifests:
        raise ValueError("source manifests: `manifests` must name the folder")
    source = FolderSource(Path(settings.manifests), AllocatorLeases(bus), AdmissionRules)
    yield App(settings, bus, source, telemetry)


@contextlib.asynccontextmanager
async def opening_cluster(
    settings: ControllerSettings, bus: Bus, telemetry: Telemetry
) -> AsyncGenerator[App]:
    # only where there is a cluster: the client costs 40 MiB
    from services.controller import cluster
    from services.controller.kube import KubeClient

    client = await KubeClient.open(settings.kubeconfig)
    try:
        namespace, _, name = settings.cilium_config.partition("/")
        rows = table(settings.installation_namespace, (namespace, name))
        source = cluster.ClusterSource(client, rows, random.random, cluster.first_version())
        KubernetesMetrics(
            telemetry.meter,
            requests=lambda: client.requests,
            held=source.held,
            relists=source.relists,
            failing=source.failing,
        )
        yield App(settings, bus, source, telemetry)
    finally:
        await client.close()


def main() -> int:
    return service.main("controller", ControllerSettings, lambda settings: (settings.replica, ""), opening)


if __name__ == "__main__":
    sys.exit(main())
