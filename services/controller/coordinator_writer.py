"""The status of the SpiderCoordinator, brought in line with what the cluster says of its CIDRs.

Owns where the pieces are read. Must not know what follows from them (cidr.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import structlog

from services.controller.cidr import (
    CNI_SUFFIXES,
    NOT_OURS,
    Sources,
    coordinator_status,
    needs_controller_arguments,
    network_name,
    status_json,
)
from services.controller.event import Notable, of_coordinator
from services.controller.kube import KubeClient, KubeError
from services.controller.reflector import Name
from services.controller.status import FINALIZER
from services.controller.typed import COORDINATOR, Typed, decode
from services.controller.watched import (
    CALICO_POOLS,
    CILIUM_POOLS,
    KUBEADM_CONFIG,
    SERVICE_CIDRS,
    SERVICE_CIDRS_BETA,
)
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json
from shared.manifests.network import SpiderCoordinator

log = structlog.get_logger()

WRITE_INTERVAL_S = 1.0
CONTROLLER_PODS = "/api/v1/pods"
CONTROLLER_LABEL = "component=kube-controller-manager"


class CoordinatorWriter:
    """Keeps the status of the coordinator of this `name`; takes Spiderpool's finalizer off any that is deleted."""

    def __init__(
        self,
        client: KubeClient,
        typed: Typed,
        name: str,
        cni_config_dir: Path,
        cilium_config: Name,
        note: Callable[[Notable], None],
    ) -> None:
        self._client = client
        self._typed = typed
        self._name = name
        self._cni_config_dir = cni_config_dir
        self._cilium_config = cilium_config
        self._note = note
        self._type_before = ""
        self._told = ""

    async def bring(self, namespace: str, name: str) -> float:
        item = self._typed.told.find(COORDINATOR, ("", name))
        coordinator = decode(item, SpiderCoordinator) if item is not None else None
        if item is None or coordinator is None:
            return 0.0
        path = f"/apis/{API_VERSION}/spidercoordinators/{name}"
        meta = coordinator.metadata
        if meta.terminating:
            if FINALIZER not in meta.finalizers:
                return 0.0
            kept = [one for one in meta.finalizers if one != FINALIZER]
            version = str(item.resource_version)
            await self._client.merge(path, {"metadata": {"resourceVersion": version, "finalizers": kept}})
            return WRITE_INTERVAL_S
        if name != self._name:
            return 0.0
        type_ = coordinator.spec.pod_cidr_type or "auto"
        self._notice_change(name, meta.uid, type_)
        outcome = coordinator_status(type_, await self._sources())
        if outcome.event and outcome.event + outcome.message != self._told:
            self._note(of_coordinator(name, meta.uid, outcome.event, outcome.message))
        self._told = outcome.event + outcome.message
        wanted = status_json(outcome.status)
        if wanted == status_json(coordinator.status):
            return 0.0
        body = {
            "apiVersion": API_VERSION,
            "kind": COORDINATOR,
            "metadata": {"name": name, "uid": meta.uid},
            "status": wanted,
        }
        await self._client.apply(f"{path}/status", body)
        return WRITE_INTERVAL_S

    def _notice_change(self, name: str, uid: str, type_: str) -> None:
        before, self._type_before = self._type_before, type_
        if before and before != type_:
            message = f"Pod CIDR type changed from {before} to {type_}"
            self._note(of_coordinator(name, uid, "PodCIDRTypeChanged", message, warning=False))

    async def _sources(self) -> Sources:
        kubeadm = self._typed.config_map(KUBEADM_CONFIG)
        cilium = self._typed.config_map(self._cilium_config)
        arguments, problem = None, ""
        if needs_controller_arguments(kubeadm.data if kubeadm is not None else None):
            arguments, problem = await self._controller_arguments()
        return Sources(
            kubeadm=kubeadm.data if kubeadm is not None else None,
            controller_arguments=arguments,
            controller_problem=problem,
            cni_network=await asyncio.to_thread(first_network, self._cni_config_dir),
            cilium=cilium.data if cilium is not None else None,
            calico_pools=self._served(CALICO_POOLS),
            cilium_pools=self._served(CILIUM_POOLS),
            service_cidrs=self._served(SERVICE_CIDRS, SERVICE_CIDRS_BETA),
        )

    async def _controller_arguments(self) -> tuple[tuple[str, ...] | None, str]:
        try:
            body = await self._client.get(CONTROLLER_PODS, {"labelSelector": CONTROLLER_LABEL, "limit": "1"})
        except KubeError as error:
            return None, str(error)
        pods = cast("list[Json]", msgspec.json.decode(body).get("items") or [])
        containers = cast("list[Json]", pods[0].get("spec", {}).get("containers") or []) if pods else []
        if not containers:
            return None, ""
        first = containers[0]
        return (*(first.get("command") or ()), *(first.get("args") or ())), ""

    def _served(self, *keys: str) -> tuple[Json, ...] | None:
        """The objects of the first of these lists that the server has."""
        for key in keys:
            reflector = self._typed.told.lists[key][1]
            if reflector.served:
                return tuple(msgspec.json.decode(item.body) for item in reflector.items.values())
        return None


def first_network(directory: Path) -> str | None:
    """`name` in the first CNI configuration that is not Multus'; empty without one, None where the directory cannot be read."""
    try:
        names = sorted(
            path.name
            for path in directory.iterdir()
            if path.suffix in CNI_SUFFIXES and NOT_OURS not in path.name
        )
        return network_name((directory / names[0]).read_text()) if names else ""
    except (OSError, UnicodeError) as error:
        log.info(
            "the directory of CNI configurations cannot be read", directory=str(directory), error=str(error)
        )
        return None
