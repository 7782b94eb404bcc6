"""The rules of admission over what is in force: how the folder's judge calls shared.admission.

Owns the store that admission looks at, kept in step with what is in force, and the leases it is shown. Must not know the rules.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.controller.objects import Stored
from shared.admission import draft
from shared.admission.pod import ANNOTATION_FIELDS, SUBNET_FIELDS
from shared.admission.rules import admit, asks_leases, validate
from shared.admission.verdict import Verdict
from shared.admission.view import Objects, key_of
from shared.contracts.query import LeaseView
from shared.manifests.annotation_key import KNOWN, findings
from shared.manifests.document import ObjectKey
from shared.manifests.meta import Json
from shared.manifests.problem import FieldError

POOL = "SpiderIPPool"
_ANNOTATED = ("Pod", "Namespace")
_REMARKED = (*_ANNOTATED, "ConfigMap", "SpiderMultusConfig")


class AdmissionRules:
    def __init__(self, in_force: Mapping[ObjectKey, Stored]) -> None:
        self._store = Objects(stored.raw for stored in in_force.values())

    def put(self, raw: Json) -> None:
        self._store.put(raw)

    def remove(self, key: ObjectKey) -> None:
        self._store.remove(key)

    def asks_leases(self, raw: Json, old: Json) -> bool:
        """Whether the change takes addresses from a pool: only then those in use matter."""
        return asks_leases("UPDATE", raw, old, self._store)

    def admit(
        self, raw: Json, old: Json | None, leases: tuple[LeaseView, ...]
    ) -> Json | tuple[FieldError, ...]:
        if raw.get("kind") == POOL:
            # what is allocated is the allocator's to say; a manifest that was exported from a cluster still tells of there
            raw = {key: value for key, value in raw.items() if key != "status"}
        if old is None:
            # an object that takes the place of another one of its name is not kept out by it
            replaced = self._store.remove(key_of(raw))
            admitted, found = admit(raw, None, self._store)
            if replaced is not None:
                self._store.put(replaced)
        else:
            admitted, found = admit(raw, old, self._with(old, leases))
        if raw.get("kind") in _ANNOTATED:
            # A pod that runs is there, whatever its annotations say: the allocator refuses the attach and says why.
            return tuple(error for error in found.errors if error.field not in ANNOTATION_FIELDS) or admitted
        return found.errors or admitted

    def remarks(self, raw: Json) -> Verdict:
        kind = raw.get("kind")
        if kind not in _REMARKED:
            return Verdict()
        names = tuple(findings(str(kind), _marks(raw))) if kind in KNOWN else ()
        if kind not in (*_ANNOTATED, "ConfigMap"):
            return Verdict(warnings=names)
        found = validate("CREATE", raw, None, self._store)
        if kind == "ConfigMap":
            return Verdict(warnings=found.warnings)
        # What `subnet` and `subnets` lead to is the allocator's to say. Which pools a pod names that do not exist
        # yet is no warning here: it would come and go with the order of files.
        fields = ANNOTATION_FIELDS - SUBNET_FIELDS
        return Verdict(errors=tuple(error for error in found.errors if error.field in fields), warnings=names)

    def deletion_asks_leases(self, old: Json) -> bool:
        return asks_leases("DELETE", None, old, self._store)

    def deny_deletion(self, old: Json, leases: tuple[LeaseView, ...]) -> tuple[FieldError, ...]:
        return validate("DELETE", None, old, self._with(old, leases)).errors

    def _with(self, old: Json, leases: tuple[LeaseView, ...]) -> Objects:
        """What is in force, and the leases of this object, if it has any."""
        if not leases:
            return self._store
        held = {lease.address: f"{lease.pod_namespace}/{lease.pod_name}" for lease in leases}
        return self._store.copy({key_of(old).name: held})


def _marks(raw: Json) -> dict[str, str]:
    marks = draft.existing(draft.existing(raw, "metadata") or {}, "annotations") or {}
    return {key: text for key, text in marks.items() if isinstance(text, str)}
