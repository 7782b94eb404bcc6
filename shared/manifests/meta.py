"""What every Kubernetes object carries: metadata, owners, label selectors.

Owns the types only. Must not know which kinds exist or what a selector matches.
"""

from __future__ import annotations

from typing import Any

import msgspec

Json = dict[str, Any]
"""A JSON object as it was written: what we store, show and hand back, unknown members included."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The base of all manifest types: camelCase outside, absent members have their default, unknown ones are ignored."""


class OwnerReference(Part, frozen=True, kw_only=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Part, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int | None = None

    @property
    def terminating(self) -> bool:
        return bool(self.deletion_timestamp)

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that controls the object, if any."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class Requirement(Part, frozen=True, kw_only=True):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class LabelSelector(Part, frozen=True, kw_only=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


class Object(Part, frozen=True, kw_only=True):
    """The members that every object has."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()
