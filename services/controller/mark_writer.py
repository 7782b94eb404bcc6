"""The mark of the lease log, kept for all allocators of the cluster in one ConfigMap, and beside it how far of that log the
SpiderEndpoints tell.

Owns which mark is kept: the furthest that was told, and never one that contradicts the one that is there. Must not know what a mark
means to a log. The allocators read it as a fact, as any other object.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from services.controller.kube import KubeClient
from services.controller.mirrored import through
from services.controller.reflector import Item, Name
from services.controller.typed import Typed, decode
from shared.bus import Message
from shared.contracts.codec import MessageError
from shared.contracts.mark import (
    CONFIG_MAP,
    KEEP_MARK,
    LogMark,
    Mirrored,
    contradicts,
    goes_further,
    read_mark,
    read_mirrored,
    written_mark,
    written_mirrored,
)
from shared.limits import MARK_SHARE_INTERVAL_S
from shared.manifests.workload import ConfigMap

log = structlog.get_logger()

MARK = "LeaseLogMark"
ABOUT = "How far the lease log surely went. Delete it only when no lease is left: without it a lost log looks like a new one."


class MarkWriter:
    """`look_again` is asked for with kind `MARK` whenever there may be something to write."""

    def __init__(
        self,
        client: KubeClient,
        typed: Typed,
        namespace: str,
        look_again: Callable[[str, str, str], None],
        covered: Callable[[], Mirrored | None],
        refused: Callable[[str], None],
    ) -> None:
        """`covered` is how far the endpoints tell by what this process has written itself."""
        self._client = client
        self._typed = typed
        self._place: Name = (namespace, CONFIG_MAP)
        self._look_again = look_again
        self._covered = covered
        self._refused = refused
        self._told: LogMark | None = None

    def on_keep(self, message: Message) -> None:
        try:
            mark = KEEP_MARK.decode(message.data).mark
        except MessageError as error:
            self._refused("orb.mark")
            log.warning("a mark that is none", error=str(error))
            return
        if self._told is None or not goes_further(self._told, mark):
            self._told = mark
        self.look()

    def look(self) -> None:
        """There may be something to write."""
        self._look_again(MARK, *self._place)

    @property
    def mirrored(self) -> Mirrored | None:
        """How far of the log that the mark names the endpoints tell, by this process or by the one that wrote before."""
        item = self._typed.told.find("ConfigMap", self._place)
        kept = _mark_in(item)
        mark = kept if kept is not None and not self._supersedes(kept) else self._told
        return through(mark, (self._covered(), _mirrored_in(item)))

    def _supersedes(self, kept: LogMark) -> bool:
        told = self._told
        return told is not None and not (goes_further(kept, told) or contradicts(kept, told))

    async def bring(self, namespace: str, name: str) -> float:
        item = self._typed.told.find("ConfigMap", self._place)
        told, kept = self._told, _mark_in(item)
        mark = kept if kept is not None and not self._supersedes(kept) else told
        mirrored = self.mirrored
        if mark is None or (mark == kept and mirrored == _mirrored_in(item)):
            return 0.0
        meta = {"name": name, "namespace": namespace}
        if item is not None and item.resource_version:
            # one that another controller has written since is not taken back
            meta |= {"uid": item.uid, "resourceVersion": str(item.resource_version)}
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {
                **written_mark(mark),
                **(written_mirrored(mirrored) if mirrored is not None else {}),
                "about": ABOUT,
            },
        }
        await self._client.apply(f"/api/v1/namespaces/{namespace}/configmaps/{name}", body)
        return MARK_SHARE_INTERVAL_S


def _mirrored_in(item: Item | None) -> Mirrored | None:
    found = decode(item, ConfigMap) if item is not None else None
    return read_mirrored(found.data) if found is not None else None


def _mark_in(item: Item | None) -> LogMark | None:
    """None where there is none, or none that can be read: whoever leads knows better by now."""
    found = decode(item, ConfigMap) if item is not None else None
    try:
        return read_mark(found.data) if found is not None else None
    except ValueError:
        return None
