"""The rules of admission over what is in force: how the folder's judge calls shared.admission.

Owns the store that admission looks at, kept in step with what is in force, and the leases it is shown. Must not know the rules.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.controller.objects import Stored
from shared.admission import addressing, pool
from shared.admission.view import Objects
from shared.contracts.query import LeaseView
from shared.manifests import shape
from shared.manifests.document import ObjectKey
from shared.manifests.ipam import SpiderIPPool
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError, Invalid

POOL = "SpiderIPPool"


class AdmissionRules:
    def __init__(self, in_force: Mapping[ObjectKey, Stored]) -> None:
        self._store = Objects(stored.raw for stored in in_force.values())

    def put(self, raw: Json) -> None:
        self._store.put(raw)

    def remove(self, key: ObjectKey) -> None:
        self._store.remove(key)

    def asks_leases(self, raw: Json, old: Json) -> bool:
        """Whether the change takes addresses from a pool: only then those in use matter."""
        new, before = shape.decode(SpiderIPPool, raw), shape.decode(SpiderIPPool, old)
        if isinstance(new, Invalid) or isinstance(before, Invalid):
            return False
        return bool(addressing.total(before.spec).subtract(addressing.total(new.spec)))

    def admit(
        self, raw: Json, old: Json | None, leases: tuple[LeaseView, ...]
    ) -> Json | tuple[FieldError, ...]:
        if raw.get("kind") != POOL:
            return raw
        view = self._store
        mutated = pool.mutate(raw, view)
        typed = shape.decode(SpiderIPPool, mutated)
        if isinstance(typed, Invalid):
            return typed.errors
        if old is None:
            errors = pool.create_errors(typed, view)
        else:
            before = shape.decode(SpiderIPPool, old)
            assert not isinstance(before, Invalid)
            view = view.copy({typed.metadata.name: _by_address(leases)})
            errors = pool.update_errors(typed, before, view)
        return tuple(errors) or mutated

    def guards_deletion(self, key: ObjectKey) -> bool:
        return key.kind == POOL and self._store.settings.enable_validating_resources_deleted_webhook

    def deny_deletion(self, old: Json, leases: tuple[LeaseView, ...]) -> tuple[FieldError, ...]:
        return tuple(pool.deletion_errors(len(leases), "an IPPool"))


def _by_address(leases: tuple[LeaseView, ...]) -> dict[str, str]:
    return {lease.address: f"{lease.pod_namespace}/{lease.pod_name}" for lease in leases}
