"""Which sandbox of a pod is the newest that was asked for on this node.

Owns that memory. Must not know attachments or calls. A runtime that gave up on a sandbox makes another before it has detached
the first, or without ever doing so; what was under way for the first must then not take the pod's addresses back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from services.agent.entry import Entry

REMEMBERED = 4096


class Sandboxes:
    """`entries` are the journal's of boot `boot_id`: what an agent that was killed had seen."""

    def __init__(self, entries: Iterable[Entry], boot_id: str) -> None:
        self._newest: OrderedDict[str, tuple[int, str]] = OrderedDict()
        for entry in entries:
            if entry.boot_id == boot_id:
                self.enter(entry.pod_uid, entry.container_id, entry.begun_boottime_ns)

    def enter(self, pod_uid: str, container_id: str, start_ns: int) -> bool:
        """An ADD of this sandbox that started then; False if a newer sandbox of the pod is known. Without a pod always True."""
        if not pod_uid:
            return True
        newest_ns, newest = self._newest.pop(pod_uid, (start_ns, container_id))
        is_older = newest != container_id and newest_ns > start_ns
        self._newest[pod_uid] = (newest_ns, newest) if is_older else (max(newest_ns, start_ns), container_id)
        if len(self._newest) > REMEMBERED:
            self._newest.popitem(last=False)
        return not is_older
