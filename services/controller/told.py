"""What is held of the Kubernetes API and what of it was told on the bus: one Reflector for each list, one version for each fact.

Owns versions, which only rise, and the facts that wait to be published, the last of each object. Must not know how objects are
fetched, nor the bus. Pure but for who listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from services.controller.reflector import Change, Gone, Item, Name, Put, Reflector
from services.controller.watched import Watched
from shared.contracts.facts import Fact, ObjectFact, ObjectGone
from shared.limits import OBJECT_MAX_BYTES, SUBJECT_MAX_BYTES
from shared.manifests.document import ObjectKey
from shared.subjects import facts as facts_subject

Listener = Callable[[Watched, Change], None]


class InForce:
    """An object as it was told last."""

    def __init__(self, watched: Watched, name: Name, item: Item) -> None:
        self._watched = watched
        self._name = name
        self._item = item

    def fact(self) -> ObjectFact:
        return _fact(self._watched, self._name, self._item)


class Told(Mapping[ObjectKey, InForce]):
    """The objects whose facts are told, by key; and the lists of all kinds, told or not."""

    def __init__(self, table: Iterable[Watched], first_version: int) -> None:
        """Versions go on above `first_version` and above all that is resumed: neither a lost stream nor an expired tombstone may
        make new facts look old."""
        self.lists = {watched.key: (watched, Reflector()) for watched in table}
        self.version = first_version
        self.too_large: set[ObjectKey] = set()
        self._of_kind: dict[str, list[tuple[Watched, Reflector]]] = {}
        for watched, reflector in self.lists.values():
            self._of_kind.setdefault(watched.kind, []).append((watched, reflector))
        self._fresh: dict[ObjectKey, Fact] = {}
        self._strays: list[ObjectGone] = []
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Called with every change, from then on."""
        self._listeners.append(listener)

    def resume(self, facts: Iterable[Fact]) -> None:
        """Takes up what was told last, one fact an object. What is of no list (another source told it) is to be taken back."""
        for fact in facts:
            self.version = max(self.version, fact.version)
            if not isinstance(fact, ObjectFact):
                continue
            name = (fact.namespace, fact.name)
            row = self.row(fact.kind, name)
            if row is None or not row[0].facts:
                self._strays.append(_gone(fact.kind, name, fact.uid, 0))
            else:
                row[1].items[name] = item = Item(fact.uid, 0, fact.object, fact.version)
                for listener in self._listeners:
                    listener(row[0], Put(name, item))

    @property
    def synced(self) -> bool:
        return all(reflector.synced for _, reflector in self.lists.values())

    def row(self, kind: str, name: Name) -> tuple[Watched, Reflector] | None:
        """The list in which an object of this name is."""
        for watched, reflector in self._of_kind.get(kind, ()):
            if watched.holds(name):
                return watched, reflector
        return None

    def held(self, kind: str) -> Iterator[tuple[Name, Item]]:
        """Everything that is held of a kind."""
        for _, reflector in self._of_kind.get(kind, ()):
            yield from reflector.items.items()

    def find(self, kind: str, name: Name) -> Item | None:
        row = self.row(kind, name)
        return row[1].items.get(name) if row is not None else None

    def take(self, watched: Watched, changes: Iterable[Change]) -> None:
        """Changes of one list, in order."""
        for change in changes:
            if watched.facts:
                self._tell(watched, change)
            for listener in self._listeners:
                listener(watched, change)

    def fresh(self) -> list[Fact]:
        """What is to be published, each handed out once. What other sources told is taken back when all that we have is known."""
        if self._strays and self.synced:
            for gone in self._strays:
                key = ObjectKey(gone.kind, gone.namespace, gone.name)
                self._fresh.setdefault(
                    key, _gone(gone.kind, (gone.namespace, gone.name), gone.uid, self.next_version())
                )
            self._strays.clear()
        out = list(self._fresh.values())
        self._fresh.clear()
        return out

    @property
    def waiting(self) -> bool:
        return bool(self._fresh)

    def missing_from(self, facts: Iterable[Fact]) -> list[Fact]:
        """What a stream with these last facts lacks of what is in force, and tombstones for what it has and is not."""
        told: dict[ObjectKey, ObjectFact] = {}
        for fact in facts:
            self.version = max(self.version, fact.version)
            if isinstance(fact, ObjectFact):
                told[ObjectKey(fact.kind, fact.namespace, fact.name)] = fact
        out: list[Fact] = [
            _gone(key.kind, (key.namespace, key.name), fact.uid, self.next_version())
            for key, fact in told.items()
            if key not in self
        ]
        for watched, reflector in self.lists.values():
            if not watched.facts:
                continue
            for name, item in reflector.items.items():
                if not item.version:
                    continue
                known = told.get(ObjectKey(watched.kind, *name))
                if known is not None and known.version == item.version:
                    continue
                if known is not None and known.version > item.version:
                    item.version = self.next_version()
                out.append(_fact(watched, name, item))
        return out

    def next_version(self) -> int:
        self.version += 1
        return self.version

    def __getitem__(self, key: ObjectKey) -> InForce:
        name = (key.namespace, key.name)
        row = self.row(key.kind, name)
        if row is None or not row[0].facts or not (item := row[1].items[name]).version:
            raise KeyError(key)
        return InForce(row[0], name, item)

    def __iter__(self) -> Iterator[ObjectKey]:
        for watched, reflector in self.lists.values():
            if watched.facts:
                for name, item in reflector.items.items():
                    if item.version:
                        yield ObjectKey(watched.kind, *name)

    def __len__(self) -> int:
        return sum(len(reflector.items) for watched, reflector in self.lists.values() if watched.facts)

    def _tell(self, watched: Watched, change: Change) -> None:
        key = ObjectKey(watched.kind, *change.name)
        item = change.item
        self._fresh.pop(key, None)
        match change:
            case Put():
                subject = facts_subject(watched.kind, *change.name)
                if len(item.body) > OBJECT_MAX_BYTES or len(subject) > SUBJECT_MAX_BYTES:
                    self.too_large.add(key)
                    return
                self.too_large.discard(key)
                item.version = self.next_version()
                self._fresh[key] = _fact(watched, change.name, item)
            case Gone():
                self.too_large.discard(key)
                self._fresh[key] = _gone(watched.kind, change.name, item.uid, self.next_version())


def _fact(watched: Watched, name: Name, item: Item) -> ObjectFact:
    return ObjectFact(
        kind=watched.kind,
        api_version=watched.api_version,
        namespace=name[0],
        name=name[1],
        uid=item.uid,
        version=item.version,
        object=item.body,
    )


def _gone(kind: str, name: Name, uid: str, version: int) -> ObjectGone:
    return ObjectGone(kind=kind, namespace=name[0], name=name[1], uid=uid, version=version)
