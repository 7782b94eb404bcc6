"""One kind of the Kubernetes API as we hold it: lists, watch events, losses and look-ups in; changes and the next request out.

Owns the protocol: which request follows which answer, what a full list takes away, and which of two versions counts. Must not
know the client, time, randomness or what an object says: they are handed in. Pure.

Within one watch a higher resourceVersion is newer. A full list is the truth whatever versions it carries: an etcd that was restored
from a backup counts from further back.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

LIST_LIMIT = 500
BACKOFF_MIN_S = 0.25
BACKOFF_MAX_S = 30.0
ABSENT_RETRY_S = 60.0
"""How often a kind is looked for that the server does not serve (its CRD is not installed)."""
DOUBT_MIN = 5
DOUBT_FRACTION = 0.1
DOUBT_RELIST_S = 5.0
"""A list that lacks more than max(5, 10 %) of what we hold is asked for once more before anything is taken away."""
WHOLE_LIST_AFTER = 2
"""So many expired pages and the next list is asked for in one piece."""

Name = tuple[str, str]
"""Namespace (empty for a cluster-scoped object) and name."""


class Item(msgspec.Struct, gc=False):
    """An object as far as it matters. `version` is what was told of it to the bus, 0 before; only who tells may set it."""

    uid: str
    resource_version: int
    body: bytes
    version: int = 0


class Put(msgspec.Struct, frozen=True, gc=False):
    name: Name
    item: Item


class Gone(msgspec.Struct, frozen=True, gc=False):
    """`item` is what was held last."""

    name: Name
    item: Item


Change = Put | Gone


class List(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for a page, after a pause: `continued` is the token of the page before, `limit` 0 asks for all in one piece."""

    after_s: float = 0.0
    continued: str = ""
    limit: int = LIST_LIMIT


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    after_s: float = 0.0
    resource_version: str


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """`continued` is empty on the last page."""

    items: list[tuple[Name, Item]]
    resource_version: str
    continued: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    changes: list[Change] = []
    then: List | Watch


def backoff_s(failures: int, dice: float) -> float:
    """The pause before attempt `failures` + 1: doubling, with half of it by lot (`dice` in [0, 1))."""
    whole = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2 ** min(failures - 1, 16))
    return whole / 2 + whole / 2 * dice


class Reflector:
    """`items` is what is held. `synced`: a full list was taken in since the start, so that what is absent is absent."""

    def __init__(self, known: Iterable[tuple[Name, Item]] = ()) -> None:
        self.items: dict[Name, Item] = dict(known)
        self.synced = False
        self.relists = 0
        self._seen: set[Name] = set()
        self._looked_up: set[Name] = set()
        self._dead: set[str] = set()
        self._dead_before: frozenset[str] = frozenset()
        self._doubted: frozenset[Name] = frozenset()
        self._failures = 0
        self._expired = 0
        self._absences = 0
        self._list = List()
        self._resource_version = ""

    @property
    def served(self) -> bool:
        """False while the server says that there is no such kind."""
        return not self._absences

    def start(self) -> List:
        return self._anew()

    def page(self, page: Page) -> Step:
        """A page of the list that was asked for last."""
        self._failures = self._absences = 0
        changes: list[Change] = []
        for name, item in page.items:
            self._seen.add(name)
            if item.uid in self._dead:
                continue
            known = self.items.get(name)
            if (
                known is not None
                and name in self._looked_up
                and item.resource_version <= known.resource_version
            ):
                continue  # the list began before it was looked up
            self._take(name, item, changes)
        if page.continued:
            self._list = List(continued=page.continued, limit=self._list.limit)
            return Step(changes=changes, then=self._list)
        missing = [name for name in self.items if name not in self._seen and not self._newer(name, page)]
        if self._doubtful(missing):
            self._doubted = frozenset(missing)
            return Step(changes=changes, then=self._anew(DOUBT_RELIST_S))
        for name in missing:
            changes.append(Gone(name, self.items.pop(name)))
        self._doubted = frozenset()
        self._dead -= self._dead_before
        self._expired = 0
        self.synced = True
        self._seen, self._looked_up = set(), set()
        self._resource_version = page.resource_version
        return Step(changes=changes, then=Watch(resource_version=page.resource_version))

    def put(self, name: Name, item: Item) -> list[Change]:
        """ADDED or MODIFIED of the watch."""
        self._progress(str(item.resource_version))
        known = self.items.get(name)
        changes: list[Change] = []
        if item.uid in self._dead:
            return changes
        if known is None or item.resource_version > known.resource_version:
            self._take(name, item, changes)
        return changes

    def deleted(self, name: Name, uid: str, resource_version: int) -> list[Change]:
        """DELETED of the watch; also for an object that no longer belongs to what we hold."""
        self._progress(str(resource_version))
        self._dead.discard(uid)
        known = self.items.get(name)
        if known is None or known.uid != uid or resource_version < known.resource_version:
            return []
        return [Gone(name, self.items.pop(name))]

    def bookmark(self, resource_version: str) -> None:
        self._progress(resource_version)

    def looked_up(self, name: Name, item: Item | None) -> list[Change]:
        """One object was read by itself, as of now: it may be newer than what the list or the watch has told."""
        if not self._resource_version:
            self._looked_up.add(name)
        known = self.items.get(name)
        changes: list[Change] = []
        if item is not None:
            if known is None or known.uid != item.uid or item.resource_version > known.resource_version:
                if known is not None and known.uid != item.uid:
                    self._dead.add(known.uid)
                self._take(name, item, changes)
        elif known is not None:
            self._dead.add(known.uid)
            changes.append(Gone(name, self.items.pop(name)))
        return changes

    def ended(self, served: bool, dice: float) -> Watch:
        """The watch ended in order. One that `served` nothing, not even time, counts as a failure."""
        self._failures = 0 if served else self._failures + 1
        after_s = 0.0 if served else backoff_s(self._failures, dice)
        return Watch(resource_version=self._resource_version, after_s=after_s)

    def failed(self, dice: float) -> List | Watch:
        """The request had no answer, or one that says nothing: the same again, later."""
        self._failures += 1
        after_s = backoff_s(self._failures, dice)
        if self._resource_version:
            return Watch(resource_version=self._resource_version, after_s=after_s)
        return msgspec.structs.replace(self._list, after_s=after_s)

    def expired(self, dice: float) -> List:
        """410: the version to go on from, or the token of a page, is too old. A list anew, without forgetting what is held."""
        self._expired += 1
        after_s = backoff_s(self._expired, dice) if self._expired > 1 else 0.0
        return self._anew(after_s)

    def absent(self) -> Step:
        """404 for the whole kind, where that is allowed: nobody can have made one. Where there were some, it must be said twice."""
        self._absences += 1
        if self.items and self._absences < 2:
            return Step(then=self._anew(DOUBT_RELIST_S))
        changes: list[Change] = [Gone(name, item) for name, item in self.items.items()]
        self.items.clear()
        self.synced = True
        return Step(changes=changes, then=self._anew(ABSENT_RETRY_S))

    def relist(self) -> List:
        """Everything is asked for again, in case an event was lost on the way."""
        return self._anew()

    def _anew(self, after_s: float = 0.0) -> List:
        self.relists += 1
        self._seen, self._looked_up, self._dead_before = set(), set(), frozenset(self._dead)
        self._resource_version = ""
        self._list = List(after_s=after_s, limit=LIST_LIMIT if self._expired < WHOLE_LIST_AFTER else 0)
        return self._list

    def _progress(self, resource_version: str) -> None:
        if self._resource_version and resource_version:
            self._resource_version = resource_version

    def _newer(self, name: Name, page: Page) -> bool:
        """Whether it was looked up since the list was asked for, and is newer than the list."""
        return name in self._looked_up and self.items[name].resource_version > int(page.resource_version)

    def _doubtful(self, missing: list[Name]) -> bool:
        new = sum(name not in self._doubted for name in missing)
        return new > max(DOUBT_MIN, DOUBT_FRACTION * len(self.items))

    def _take(self, name: Name, item: Item, changes: list[Change]) -> None:
        known = self.items.get(name)
        if known is not None and known.uid == item.uid and known.body == item.body:
            known.resource_version = item.resource_version
            return
        self.items[name] = item
        changes.append(Put(name, item))
