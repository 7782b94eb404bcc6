"""The objects in force: what each became when it was admitted, and the facts that tell of every change.

Owns versions, UIDs, timestamps and generations, as an API server does: `get -o yaml` looks like Kubernetes. Must not know files,
admission or the bus; time is handed in.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec

from shared.contracts.facts import Fact, FactsSynced, ObjectFact, ObjectGone
from shared.manifests.document import ObjectKey
from shared.manifests.meta import Json

_UIDS = uuid.UUID("6f1d3c0a-5b8e-5b0a-9d0e-0b6a6d2f7c11")
"""The name space of UIDs that we give; changing it would change every UID."""
_SERVER_SET = ("uid", "resourceVersion", "generation")


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One object in force. `uid` is empty for a Pod whose manifest has none; `file`, `line` are where it was last admitted from."""

    key: ObjectKey
    api_version: str
    uid: str
    version: int
    raw: Json
    file: str
    line: int

    @property
    def terminating(self) -> bool:
        return bool(metadata(self.raw).get("deletionTimestamp"))

    def fact(self) -> ObjectFact:
        return ObjectFact(
            kind=self.key.kind,
            api_version=self.api_version,
            namespace=self.key.namespace,
            name=self.key.name,
            uid=self.uid,
            version=self.version,
            object=msgspec.json.encode(self.raw),
            source=f"{self.file}:{self.line}" if self.file else "",
        )


class Objects:
    """Everything in force, the last version given, and the UIDs of what is gone. Every change returns the fact to publish."""

    def __init__(self, facts: Iterable[Fact], first_version: int) -> None:
        """Resumes from the last fact of each subject. Versions go on above the last of them, and above `first_version`, which must
        be above any that was ever given: neither a lost stream nor an expired tombstone may make new facts look old."""
        self._in_force: dict[ObjectKey, Stored] = {}
        self._gone: dict[ObjectKey, str] = {}
        self.version = first_version
        for fact in facts:
            self.version = max(self.version, fact.version)
            match fact:
                case ObjectFact():
                    stored = _stored(fact)
                    self._in_force[stored.key] = stored
                case ObjectGone():
                    self._remember(ObjectKey(fact.kind, fact.namespace, fact.name), fact.uid)
                case FactsSynced():
                    pass

    @property
    def in_force(self) -> Mapping[ObjectKey, Stored]:
        return self._in_force

    def missing_from(self, facts: Iterable[Fact]) -> list[Fact]:
        """What a stream with these last facts lacks of what is in force, and tombstones for what it has and is not."""
        told: dict[ObjectKey, ObjectFact] = {}
        for fact in facts:
            self.version = max(self.version, fact.version)
            if isinstance(fact, ObjectFact):
                told[ObjectKey(fact.kind, fact.namespace, fact.name)] = fact
        out: list[Fact] = [
            ObjectGone(
                kind=key.kind,
                namespace=key.namespace,
                name=key.name,
                uid=fact.uid,
                version=self.next_version(),
            )
            for key, fact in told.items()
            if key not in self._in_force
        ]
        for key, stored in self._in_force.items():
            version = told[key].version if key in told else 0
            if version < stored.version:
                out.append(stored.fact())
            elif version > stored.version:
                self._in_force[key] = renewed = self._renumbered(stored)
                out.append(renewed.fact())
        return out

    def _renumbered(self, stored: Stored) -> Stored:
        version = self.next_version()
        meta = {**metadata(stored.raw), "resourceVersion": str(version)}
        return msgspec.structs.replace(stored, version=version, raw={**stored.raw, "metadata": meta})

    def next_version(self) -> int:
        self.version += 1
        return self.version

    def candidate(self, key: ObjectKey, raw: Json) -> Json:
        """`raw` with what only a server knows: the UID, and of the object that it replaces the creation time."""
        old = self._in_force.get(key)
        meta = {
            name: value
            for name, value in metadata(raw).items()
            if name not in ("resourceVersion", "generation")
        }
        if not meta.get("uid"):
            meta.pop("uid", None)
            uid = old.uid if old is not None else self._new_uid(key)
            if uid:
                meta["uid"] = uid
        created = metadata(old.raw).get("creationTimestamp") if old is not None else None
        if not meta.get("creationTimestamp"):
            meta.pop("creationTimestamp", None)
            if created:
                meta["creationTimestamp"] = created
        return {**raw, "metadata": meta}

    def put(
        self, key: ObjectKey, api_version: str, raw: Json, place: tuple[str, int], now_s: float
    ) -> list[Fact]:
        """Brings an admitted candidate into force. No fact follows if it is what is in force already."""
        old = self._in_force.get(key)
        file, line = place
        meta = dict(metadata(raw))
        uid = str(meta.get("uid", ""))
        if old is not None and _written(old.raw) == _written(raw) and old.uid == uid:
            if old.file == file:
                self._in_force[key] = msgspec.structs.replace(old, line=line)
                return []
            # a move to another file is told, because after a restart that file is what keeps the object in force
            self._in_force[key] = stored = self._renumbered(
                msgspec.structs.replace(old, file=file, line=line)
            )
            return [stored.fact()]
        facts: list[Fact] = []
        if old is not None and replaces(old, raw):
            facts += self.remove(key)
            old = None
        version = self.next_version()
        generation = cast("int", metadata(old.raw).get("generation", 1)) if old is not None else 1
        if old is not None and _desired(old.raw) != _desired(raw):
            generation += 1
        meta.setdefault("creationTimestamp", timestamp(now_s))
        meta |= {"resourceVersion": str(version), "generation": generation}
        stored = Stored(
            key=key,
            api_version=api_version,
            uid=uid,
            version=version,
            raw={**raw, "metadata": meta},
            file=file,
            line=line,
        )
        self._in_force[key] = stored
        self._gone.pop(key, None)
        return [*facts, stored.fact()]

    def terminate(self, key: ObjectKey, now_s: float) -> list[Fact]:
        """The object is asked to go, and stays until what holds it is gone."""
        old = self._in_force[key]
        if old.terminating:
            return []
        version = self.next_version()
        meta = {
            **metadata(old.raw),
            "resourceVersion": str(version),
            "deletionTimestamp": timestamp(now_s),
            "deletionGracePeriodSeconds": 0,
        }
        stored = msgspec.structs.replace(old, version=version, raw={**old.raw, "metadata": meta})
        self._in_force[key] = stored
        return [stored.fact()]

    def remove(self, key: ObjectKey) -> list[Fact]:
        """The object is gone; its tombstone names the UID."""
        old = self._in_force.pop(key)
        self._remember(key, old.uid)
        gone = ObjectGone(
            kind=key.kind, namespace=key.namespace, name=key.name, uid=old.uid, version=self.next_version()
        )
        return [gone]

    def _remember(self, key: ObjectKey, uid: str) -> None:
        """Only what gets its UID from us must differ from what went before: pods come and go in great numbers."""
        if key.kind != "Pod":
            self._gone[key] = uid

    def _new_uid(self, key: ObjectKey) -> str:
        """Stable over restarts, and another one than that of the object of this name that went before."""
        if key.kind == "Pod":
            return ""
        before = self._gone.get(key, "")
        return str(uuid.uuid5(_UIDS, f"{key}#{before}"))


def replaces(old: Stored, raw: Json) -> bool:
    """Whether a manifest names another object of the same name (another UID): the old one is then gone, as in a cluster.
    A Pod that had no UID and gets one is the same Pod."""
    uid = metadata(raw).get("uid")
    return bool(uid and old.uid and uid != old.uid)


def metadata(raw: Json) -> Json:
    return cast("Json", raw.get("metadata") or {})


def timestamp(now_s: float) -> str:
    """RFC 3339 in whole seconds, UTC: how Kubernetes writes times."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _written(raw: Json) -> Json:
    """What of an object a manifest decides: all but what the server counts."""
    meta = {name: value for name, value in metadata(raw).items() if name not in _SERVER_SET}
    return {**raw, "metadata": meta}


def _desired(raw: Json) -> Json:
    """What `metadata.generation` counts changes of."""
    return {name: value for name, value in raw.items() if name not in ("metadata", "status")}


def _stored(fact: ObjectFact) -> Stored:
    file, _, line = fact.source.rpartition(":")
    raw = cast("Json", msgspec.json.decode(fact.object))
    return Stored(
        key=ObjectKey(fact.kind, fact.namespace, fact.name),
        api_version=fact.api_version,
        uid=fact.uid,
        version=fact.version,
        raw=raw,
        file=file,
        line=int(line) if line.isdigit() else 0,
    )
