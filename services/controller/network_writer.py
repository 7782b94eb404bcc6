"""NetworkAttachmentDefinitions, brought in line with the SpiderMultusConfigs that they come from.

Owns what is compared and which request follows. Must not know how one is rendered (nad.py).
"""

from __future__ import annotations

import structlog

from services.controller.kube import KubeClient
from services.controller.nad import NAD_API_VERSION, definition, definition_name, differs, replacement
from services.controller.typed import Typed
from shared.manifests.network import SpiderMultusConfig

log = structlog.get_logger()

WRITE_INTERVAL_S = 1.0


class NetworkWriter:
    """A definition of that name that nobody controls is taken over; one that another SpiderMultusConfig controls is left to it."""

    def __init__(self, client: KubeClient, typed: Typed) -> None:
        self._client = client
        self._typed = typed

    async def bring(self, namespace: str, name: str) -> float:
        config = self._typed.network(namespace, name)
        if config is None or config.metadata.terminating:
            return 0.0  # what it controls goes with it
        wanted = definition(config)
        if wanted is None:
            log.warning("a SpiderMultusConfig cannot be rendered", object=f"{namespace}/{name}")
            return 0.0
        if self._typed.first_namesake(namespace, definition_name(config)) != name:
            return 0.0  # the older of one name counts
        wrote = await self._drop_renamed(config)
        collection = f"/apis/{NAD_API_VERSION}/namespaces/{namespace}/network-attachment-definitions"
        found = self._typed.definition(namespace, definition_name(config))
        if found is None:
            await self._client.create(collection, wanted)
            return WRITE_INTERVAL_S
        present, item = found
        if present.metadata.terminating or not differs(wanted, present):
            return wrote
        controller = present.metadata.controller
        if controller is not None and self._lives(namespace, controller.uid, config):
            log.warning(
                "a NetworkAttachmentDefinition belongs to another SpiderMultusConfig",
                object=f"{namespace}/{present.metadata.name}",
                owner=controller.name,
            )
            return wrote
        body = replacement(wanted, present, item.resource_version)
        await self._client.replace(f"{collection}/{present.metadata.name}", body)
        return WRITE_INTERVAL_S

    def _lives(self, namespace: str, uid: str, own: SpiderMultusConfig) -> bool:
        """Whether another configuration that is there has this UID, and leads to another definition by its name."""
        return uid != own.metadata.uid and any(
            one.metadata.uid == uid and definition_name(one) != definition_name(own)
            for one in self._typed.networks(namespace)
        )

    async def _drop_renamed(self, config: SpiderMultusConfig) -> float:
        """What this configuration made under another name than it has now."""
        wrote = 0.0
        namespace, name = config.metadata.namespace, definition_name(config)
        for one in list(self._typed.definitions(namespace)):
            controller = one.metadata.controller
            if controller is None or controller.uid != config.metadata.uid or one.metadata.name == name:
                continue
            if not one.metadata.terminating:
                path = f"/apis/{NAD_API_VERSION}/namespaces/{namespace}/network-attachment-definitions"
                await self._client.delete(f"{path}/{one.metadata.name}", one.metadata.uid)
                wrote = WRITE_INTERVAL_S
        return wrote
