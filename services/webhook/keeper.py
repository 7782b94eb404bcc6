"""Certificates and webhook configurations of a cluster, kept as they should be by every replica alike.

Owns when it is looked, and the order: the Secret before the files, the files before the configurations name their authority. All
replicas come to the same, so they need no leader: who is second finds nothing to do. Must not know what a configuration says
(configuration.py) nor when an authority changes (authority.py).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import structlog

from services.webhook.authority import Authority, due, from_secret
from services.webhook.certificate import CertificateFiles, ensure_certificates, issue_into
from services.webhook.configuration import Reach, Wish, mutating, reconciled, validating
from services.webhook.kube import KubeClient, KubeError
from shared.manifests.meta import Json
from shared.settings import ClusterAdmissionSettings

log = structlog.get_logger()

LOOK_S = 60.0
RETRY_S = 1.0
PAUSE_S = 0.5
"""Between two looks, so that we and somebody who writes otherwise do not keep the API server busy."""
_CONFLICT = 409
_API = "/apis/admissionregistration.k8s.io/v1"
_KINDS = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")


class Keeper:
    """`wish` tells what the configurations depend on now, without the authority; `changed` is called with a new set of files."""

    def __init__(
        self,
        kube: KubeClient,
        settings: ClusterAdmissionSettings,
        directory: Path,
        names: tuple[str, ...],
        wish: Callable[[], Wish | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._directory = directory
        self._names = names
        self._wish = wish
        self._now = now
        self._look = asyncio.Event()
        self.problem = "the webhook configurations are not looked at yet"
        """Why certificates or configurations may be out of date; empty when they are true."""

    def look(self) -> None:
        """Something changed that the configurations depend on."""
        self._look.set()

    async def certificates(self) -> CertificateFiles:
        """The files, as soon as the authority is known. Waits for the API server as long as it takes, unless files are there."""
        while True:
            try:
                return await self._issue()
            except KubeError as error:
                log.warning("the authority cannot be read yet", error=str(error))
                files = CertificateFiles(self._directory)
                if files.server.exists() and files.server_key.exists():
                    return files
            await asyncio.sleep(RETRY_S)

    async def run(self) -> None:
        """Looks once a minute, when told to, when somebody else changed a configuration, and soon again after a failure."""
        async with asyncio.TaskGroup() as group:
            for kind in _KINDS:
                group.create_task(self._watch(kind))
            await self._keep()

    async def _watch(self, kind: str) -> None:
        """Until we have put it right, a configuration without our authority refuses every change of a pool."""
        while True:
            try:
                async for _ in self._kube.changes(f"{_API}/{kind}", self._settings.configuration):
                    self.look()
            except KubeError as error:
                log.debug("a configuration is not watched", kind=kind, error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _keep(self) -> None:
        while True:
            self._look.clear()
            try:
                await self._issue()
                await self._reconcile()
                self.problem = ""
            except (KubeError, OSError, ValueError) as error:
                self.problem = str(error)
                log.warning("webhook configurations not looked at", error=str(error))
            await asyncio.sleep(PAUSE_S)
            try:
                await asyncio.wait_for(self._look.wait(), RETRY_S * 5 if self.problem else LOOK_S)
            except TimeoutError:
                continue

    async def _issue(self) -> CertificateFiles:
        if not self._settings.secret:
            return ensure_certificates(self._directory, self._names, self._now())
        authority = await self._authority()
        return issue_into(self._directory, self._names, authority.current, authority.bundle, self._now())

    async def _authority(self) -> Authority:
        """The shared authority, made or brought one step on where that is due. Raises KubeError, ValueError."""
        collection = f"/api/v1/namespaces/{self._settings.namespace}/secrets"
        path = f"{collection}/{self._settings.secret}"
        while True:
            stored = await self._kube.get(path)
            known = from_secret(cast("dict[str, str]", (stored or {}).get("data") or {}))
            wanted = due(known, self._now())
            if wanted is known:
                return wanted
            try:
                if stored is None:
                    await self._kube.create(collection, self._secret(wanted))
                else:
                    await self._kube.replace(path, {**stored, "data": wanted.to_secret()})
            except KubeError as error:
                if error.status == _CONFLICT:
                    continue  # another replica was first: what it wrote counts
                raise
            log.info("the authority of the webhook moved on", trusted=wanted.bundle.count(b"BEGIN"))
            return wanted

    def _secret(self, authority: Authority) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._settings.secret, "namespace": self._settings.namespace},
            "type": "Opaque",
            "data": authority.to_secret(),
        }

    async def _reconcile(self) -> None:
        wish = self._wish()
        if wish is None:
            raise ValueError("the objects are not read yet")
        files = CertificateFiles(self._directory)
        # Whose the certificates are, theirs is the bundle: two who write it, one from files that are a minute old, would never end.
        ours = files.ca.exists() and (bool(self._settings.secret) or files.ca_key.exists())
        bundle = base64.b64encode(files.ca.read_bytes()).decode() if ours else ""
        whole = Wish(
            own_namespace=self._settings.namespace,
            ca_bundle=bundle,
            settings=wish.settings,
            injecting=wish.injecting,
        )
        for kind, wanted in zip(_KINDS, (validating(Reach(), whole), mutating(Reach(), whole)), strict=True):
            await self._bring(f"{_API}/{kind}/{self._settings.configuration}", wanted)

    async def _bring(self, path: str, wanted: Json) -> None:
        while True:
            current = await self._kube.get(path)
            if current is None:
                raise ValueError(f"{path} is not there: apply deploy/base/webhook")
            changed = reconciled(current, wanted)
            if changed is None:
                return
            try:
                await self._kube.replace(path, changed)
            except KubeError as error:
                if error.status == _CONFLICT:
                    continue
                raise
            log.info("webhook configuration brought up to date", path=path)
            return
