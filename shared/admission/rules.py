"""Admission of any object: defaulting, and judging one operation. The one entrance of webhook, folder and command line.

Owns the dispatch by kind, and the rules that hold for metadata of every kind. Must not know where objects come from, nor how
an answer is transported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from shared.admission import coordinator, multus, pod, pool, reserved, subnet
from shared.admission.addressing import total
from shared.admission.verdict import Operation, Verdict, verdict
from shared.admission.view import Objects, View
from shared.manifests import annotation_key, shape
from shared.manifests import settings as conf
from shared.manifests.ipam import SpiderIPPool, SpiderReservedIP, SpiderSubnet
from shared.manifests.kinds import API_VERSION, kind_of
from shared.manifests.meta import Json, Object, ObjectMeta
from shared.manifests.network import SpiderCoordinator, SpiderMultusConfig
from shared.manifests.problem import FieldError, Invalid, entry, invalid
from shared.manifests.selector import key_error, label_errors
from shared.manifests.workload import ConfigMap, CronJob, Namespace, Pod, Workload

ANNOTATIONS_MAX_BYTES = 256 * 1024
"""Keys and values of all annotations of an object (apimachinery, TotalAnnotationSizeLimitB)."""

_MUTATIONS: dict[str, Callable[[Json, View], Json]] = {
    "SpiderIPPool": pool.mutate,
    "SpiderSubnet": subnet.mutate,
    "SpiderReservedIP": reserved.mutate,
    "SpiderMultusConfig": multus.mutate,
    "SpiderCoordinator": coordinator.mutate,
}


def mutate(raw: Json, view: View) -> Json:
    """The object as it is stored: defaults of schema and webhook. Never rejects, never raises; idempotent; `raw` is unchanged."""
    row = kind_of(str(raw.get("apiVersion", "")), str(raw.get("kind", "")))
    mutation = _MUTATIONS.get(row.kind) if row is not None else None
    return mutation(raw, view) if mutation is not None else raw


def validate(operation: Operation, raw: Json | None, old: Json | None, view: View) -> Verdict:
    """Everything wrong with an operation, at once. `raw` is the mutated object (None on DELETE), `old` the stored one.

    On CREATE the view may hold the object itself only if it exists already: that is answered with AlreadyExists.
    """
    subject = raw if raw is not None else old
    if subject is None:
        return verdict([invalid("", "there is no object", "Required")])
    row = kind_of(str(subject.get("apiVersion", "")), str(subject.get("kind", "")))
    if row is None:
        return Verdict()
    before = shape.decode(row.type, old) if old is not None else None
    stored = None if isinstance(before, Invalid) else before
    if operation == "DELETE":
        return verdict(_delete_errors(stored, view))
    decoded, misfits = shape.lenient(row.type, raw)
    if isinstance(decoded, Invalid):
        return verdict(misfits)
    errors, warnings = _findings(decoded, stored if operation == "UPDATE" else None, view)
    if operation == "UPDATE" and stored is not None and row.kind in _MUTATIONS and errors:
        errors, warnings = _ratcheted(errors, warnings, stored)
    found = [*_meta_errors(decoded.metadata), *errors]
    return verdict([*misfits, *shape.besides(found, misfits)], warnings)


def admit(raw: Json, old: Json | None, view: View) -> tuple[Json, Verdict]:
    """Defaults, then judges: UPDATE where `old` is given, else CREATE. The object as it would be stored, and the verdict.

    Errors point at ranges as they are written in `raw`, although defaulting merges them.
    """
    operation: Operation = "CREATE" if old is None else "UPDATE"
    admitted = mutate(raw, view)
    found = validate(operation, admitted, old, view)
    if not found.valid:
        found = validate(operation, _as_written(admitted, raw), old, view)
    return admitted, found


def _as_written(admitted: Json, raw: Json) -> Json:
    spec, written = admitted.get("spec"), raw.get("spec")
    if not isinstance(spec, dict) or not isinstance(written, dict):
        return admitted
    ranges = {key: value for key, value in cast("Json", written).items() if key in ("ips", "excludeIPs")}
    return {**admitted, "spec": {**cast("Json", spec), **ranges}}


def asks_leases(operation: str, raw: Json | None, old: Json | None, view: View) -> bool:
    """Whether the verdict depends on which addresses of the pool are leased: so that nobody is asked without need."""
    before = shape.decode(SpiderIPPool, old) if old is not None else None
    if not isinstance(before, SpiderIPPool) or kind_of(before.api_version, before.kind) is not kind_of(
        API_VERSION, "SpiderIPPool"
    ):
        return False
    if operation == "DELETE":
        return view.settings.enable_validating_resources_deleted_webhook
    after = shape.decode(SpiderIPPool, raw) if raw is not None and operation == "UPDATE" else None
    return isinstance(after, SpiderIPPool) and bool(total(before.spec).subtract(total(after.spec)))


def _ratcheted(
    errors: list[FieldError], warnings: list[FieldError], stored: Object
) -> tuple[list[FieldError], list[FieldError]]:
    """What is wrong with the stored object alone, in the same words, refuses no change of something else: it came in unjudged, or by
    rules of another version, and must stay usable (the API server does so for its schemas). What is forbidden stays so."""
    standing = {error for error in _findings(stored, stored, Objects())[0] if error.code != "Forbidden"}
    stay = [invalid(error.field, error.message, "Unknown") for error in errors if error in standing]
    return [error for error in errors if error not in standing], warnings + stay


def _delete_errors(old: Object | None, view: View) -> list[FieldError]:
    match old:
        case SpiderIPPool():
            return pool.delete_errors(old, view)
        case SpiderSubnet():
            return subnet.delete_errors(old, view)
        case _:
            return []


def _findings(now: Object, old: Object | None, view: View) -> tuple[list[FieldError], list[FieldError]]:
    errors: list[FieldError] = []
    match now:
        case SpiderIPPool() if isinstance(old, SpiderIPPool):
            return pool.update_errors(now, old, view), pool.conflict_warnings(now, old, view)
        case SpiderIPPool():
            errors = pool.create_errors(now, view)
        case SpiderSubnet():
            errors = (
                subnet.update_errors(now, old, view)
                if isinstance(old, SpiderSubnet)
                else subnet.create_errors(now, view)
            )
        case SpiderReservedIP():
            errors = (
                reserved.update_errors(now, old, view)
                if isinstance(old, SpiderReservedIP)
                else reserved.create_errors(now, view)
            )
        case SpiderMultusConfig():
            warnings = annotation_key.findings("SpiderMultusConfig", now.metadata.annotations)
            if isinstance(old, SpiderMultusConfig):
                return multus.update_errors(now, old, view), warnings + multus.conflict_warnings(now, view)
            return multus.create_errors(now, view), warnings
        case SpiderCoordinator():
            errors = coordinator.errors(now, view)
        case Pod():
            return pod.pod_findings(now, old if isinstance(old, Pod) else None, view)
        case Workload() | CronJob():
            before = old if isinstance(old, Workload | CronJob) else None
            return [], pod.template_findings(now, before, view)
        case Namespace():
            return pod.namespace_findings(now, old if isinstance(old, Namespace) else None, view)
        case ConfigMap() if now.metadata.name == conf.CONFIG_MAP:
            found = conf.settings_of(now)
            return (list(found.errors) if isinstance(found, Invalid) else []), conf.warnings_of(now)
        case _:
            pass
    return errors, []


def _meta_errors(meta: ObjectMeta) -> list[FieldError]:
    out = label_errors(meta.labels, "metadata.labels")
    for key in meta.annotations:
        # The API server compares annotation keys in lower case only (validation.ValidateAnnotations).
        sentence = key_error(key.lower())
        if sentence:
            out.append(invalid(entry("metadata.annotations", key), sentence))
    size = sum(len(key.encode()) + len(text.encode()) for key, text in meta.annotations.items())
    if size > ANNOTATIONS_MAX_BYTES:
        out.append(invalid("metadata.annotations", f"are {size} bytes, more than {ANNOTATIONS_MAX_BYTES}"))
    return out
