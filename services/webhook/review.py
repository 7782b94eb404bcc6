"""AdmissionReview v1 in, AdmissionReview v1 out: a thin skin over shared.admission.

Owns the form of Kubernetes' request and answer, and which path judges which kind. Pure: the view of the other objects is given.
Must not know HTTP, TLS or where the view comes from.
"""

from __future__ import annotations

import base64
from typing import Any, Literal, cast

import msgspec

from services.webhook.patch import diff
from shared.admission import draft
from shared.admission.injection import inject, injects
from shared.admission.rules import mutate, validate
from shared.admission.verdict import Verdict, verdict
from shared.admission.view import View
from shared.manifests.annotations import TRACEPARENT
from shared.manifests.kinds import BY_KIND
from shared.manifests.meta import Json
from shared.manifests.problem import Code, FieldError

API_VERSION = "admission.k8s.io/v1"
_OURS = ("SpiderIPPool", "SpiderSubnet", "SpiderReservedIP", "SpiderMultusConfig", "SpiderCoordinator")
_CORE = ("Pod", "Namespace", "ConfigMap", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
Verb = Literal["mutate", "validate"]


def path_of(verb: Verb, kind: str) -> str:
    """`/validate-spiderpool-spidernet-io-v2beta1-spiderippool`, `/mutate--v1-pod`: the form of controller-runtime."""
    api_version = BY_KIND[kind].api_version
    group, _, version = api_version.rpartition("/")
    return f"/{verb}-{group.replace('.', '-')}-{version}-{kind.lower()}"


PATHS: dict[str, tuple[Verb, str]] = {
    **{path_of("mutate", kind): ("mutate", kind) for kind in (*_OURS, "Pod")},
    **{path_of("validate", kind): ("validate", kind) for kind in (*_OURS, *_CORE)},
}
"""Every path that is served: what it does, and to which kind."""

_CAUSES: dict[Code, str] = {
    "Invalid": "FieldValueInvalid",
    "Required": "FieldValueRequired",
    "NotSupported": "FieldValueNotSupported",
    "Duplicate": "FieldValueDuplicate",
    "Forbidden": "FieldValueForbidden",
    "AlreadyExists": "FieldValueDuplicate",
    "TypeInvalid": "FieldValueTypeInvalid",
    "Unreadable": "FieldValueInvalid",
    "Unknown": "FieldValueInvalid",
}
_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    422: "Invalid",
    503: "ServiceUnavailable",
}


class GroupVersionKind(msgspec.Struct, frozen=True, kw_only=True):
    group: str = ""
    version: str = ""
    kind: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What we read of AdmissionRequest; `object` is absent on DELETE, `old_object` on CREATE."""

    uid: str
    kind: GroupVersionKind = GroupVersionKind()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    operation: str = ""
    dry_run: bool = False
    object: Json | None = None
    old_object: Json | None = None


class Review(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: str
    kind: str
    request: Request


_DECODER = msgspec.json.Decoder(Review)


def decode(body: bytes) -> Request:
    """The request of a review. Raises ValueError with a sentence."""
    try:
        review = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f"the body is not an AdmissionReview: {error}") from None
    if review.api_version != API_VERSION or review.kind != "AdmissionReview":
        raise ValueError(f"{review.api_version} {review.kind} is not {API_VERSION} AdmissionReview")
    return review.request


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where we run and which trace the answer belongs to. Pods of `spared` namespaces are never refused, nor changed."""

    spared: frozenset[str] = frozenset()
    traceparent: str = ""


NOWHERE = Site()


def answer(verb: Verb, kind: str, request: Request, view: View, site: Site = NOWHERE) -> dict[str, Any]:
    """The review that answers. A mutation refuses nothing but a pod whose injection cannot be, and the kind of a feature that is
    off."""
    if request.kind.kind != kind:
        return refused(request, 422, f"{request.kind.kind} was sent to the path of {kind}")
    for raw in (request.object, request.old_object):
        if raw is not None and not _is(raw, request.kind):
            # Rules go by what the object says it is: it must not be judged by those of another kind.
            sentence = (
                f"the object is no {request.kind.kind} of {request.kind.api_version}, as the request says"
            )
            return refused(request, 400, sentence)
    if kind == "SpiderSubnet" and not view.settings.enable_spider_subnet:
        return refused(request, 404, "could not find the requested resource: SpiderSubnet is not enabled")
    if request.sub_resource:
        return _review(request, {"allowed": True})
    if verb == "mutate":
        return _injected(request, view, site) if kind == "Pod" else _mutated(request, view)
    return _validated(request, view, _mode(kind, request, view, site))


def unread(verb: Verb, kind: str, request: Request, reason: str, site: Site) -> dict[str, Any]:
    """The answer while the objects are not read: what is only looked at is let pass, all else waits."""
    if is_looked_at(verb, kind) or (kind == "Pod" and request.namespace in site.spared):
        return _review(request, {"allowed": True, "warnings": [f"not looked at by orbweaver: {reason}"]})
    return refused(request, 503, f"the webhook cannot judge yet: {reason}")


def is_looked_at(verb: Verb, kind: str) -> bool:
    """Whether the cluster goes on without our answer (failurePolicy Ignore)."""
    return verb == "validate" and kind in _CORE


def _mode(kind: str, request: Request, view: View, site: Site) -> str:
    """`podValidation` for pods and what makes them; everything else is enforced."""
    if kind not in _CORE or kind in ("Namespace", "ConfigMap"):
        return "enforce"
    mode = view.settings.pod_validation
    return "warn" if mode == "enforce" and request.namespace in site.spared else mode


def _is(raw: Json, kind: GroupVersionKind) -> bool:
    return raw.get("kind") == kind.kind and raw.get("apiVersion") == kind.api_version


def _mutated(request: Request, view: View) -> dict[str, Any]:
    before = request.object
    if before is None:
        return _review(request, {"allowed": True})
    return _patched(request, before, mutate(before, view))


def _patched(request: Request, before: Json, after: Json) -> dict[str, Any]:
    operations = diff(before, after)
    if not operations:
        return _review(request, {"allowed": True})
    patch = base64.b64encode(msgspec.json.encode(operations)).decode()
    return _review(request, {"allowed": True, "patchType": "JSONPatch", "patch": patch})


def _injected(request: Request, view: View, site: Site) -> dict[str, Any]:
    before = request.object
    namespace = request.namespace
    if (
        before is None
        or request.operation != "CREATE"
        or namespace in site.spared
        or not injects(namespace, view)
    ):
        return _review(request, {"allowed": True})
    after = inject(before, namespace, view)
    if isinstance(after, tuple):
        return _review(request, {"allowed": False, "status": _status(request, verdict(after))})
    if after == before:
        return _review(request, {"allowed": True})
    meta = draft.section(after, "metadata")
    marks = draft.section(meta, "annotations") if meta is not None and site.traceparent else None
    if marks is not None:
        marks[TRACEPARENT] = site.traceparent
    return _patched(request, before, after)


def _validated(request: Request, view: View, mode: str) -> dict[str, Any]:
    if request.operation not in ("CREATE", "UPDATE", "DELETE") or mode == "off":
        return _review(request, {"allowed": True})
    found = validate(request.operation, request.object, request.old_object, view)
    if mode == "warn":
        found = verdict((), (*found.errors, *found.warnings))
    warnings = [f"{one.field}: {one.message}" for one in found.warnings]
    extra: dict[str, Any] = {"warnings": warnings} if warnings else {}
    if found.valid:
        return _review(request, {"allowed": True, **extra})
    return _review(request, {"allowed": False, "status": _status(request, found), **extra})


def _status(request: Request, found: Verdict) -> dict[str, Any]:
    """A Status as the API server writes it for an invalid object, with every cause."""
    code = found.status
    resource = f"{request.kind.kind}.{request.kind.group}" if request.kind.group else request.kind.kind
    name = request.name or _name(request.object) or _name(request.old_object)
    sentences = [
        f"{error.field}: {error.message}" if error.field else error.message for error in found.errors
    ]
    together = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    verb = {403: "is forbidden", 409: "already exists"}.get(code, "is invalid")
    return {
        "status": "Failure",
        "code": code,
        "reason": _REASONS[code],
        "message": f'{resource} "{name}" {verb}: {together}',
        "details": {
            "group": request.kind.group,
            "kind": request.kind.kind,
            "name": name,
            "causes": [_cause(error) for error in found.errors],
        },
    }


def _cause(error: FieldError) -> dict[str, str]:
    return {"reason": _CAUSES[error.code], "field": error.field, "message": error.message}


def _name(raw: Json | None) -> str:
    meta = raw.get("metadata") if raw is not None else None
    name = cast("Json", meta).get("name") if isinstance(meta, dict) else None
    return name if isinstance(name, str) else ""


def pod_attributes(request: Request) -> dict[str, str]:
    """Which pod a review is about, in the words of an attach: its UID is what links the two. Mutating webhooks of a CREATE are called
    before there is a UID, or a name made of `generateName`."""
    meta = request.object.get("metadata") if request.object is not None else None
    members = cast("Json", meta) if isinstance(meta, dict) else {}
    found = {
        "k8s.namespace.name": request.namespace,
        "k8s.pod.name": members.get("name"),
        "k8s.pod.uid": members.get("uid"),
    }
    return {key: value for key, value in found.items() if isinstance(value, str) and value}


def refused(request: Request, code: int, message: str) -> dict[str, Any]:
    """A refusal that is about no field."""
    status = {"status": "Failure", "code": code, "reason": _REASONS[code], "message": message}
    return _review(request, {"allowed": False, "status": status})


def _review(request: Request, response: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "AdmissionReview",
        "response": {"uid": request.uid, **response},
    }
