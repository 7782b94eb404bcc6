"""Events of Kubernetes: what went wrong with an attach, what witnesses of leases disagree on, what keeps a coordinator from its work.

Owns their words and form, and which are the same, so that a repetition counts up instead of adding. Must not know how they are
written, nor read a clock. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from shared.contracts.attach import AttachEvent, AttachFailed, SweepStopped
from shared.contracts.disagreement import DisagreementAppeared, DisagreementEvent, DisagreementSettled
from shared.manifests.kinds import API_VERSION
from shared.manifests.meta import Json

COMPONENT = "spiderpool"
"""As in Spiderpool's own events: people filter by it."""
MESSAGE_MAX_CHARS = 1024
"""Kubernetes' own limit of an Event's message (pkg/apis/core/validation/events.go)."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The object of an event. `uid` may be empty."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""


class Notable(msgspec.Struct, frozen=True, kw_only=True):
    about: About
    reason: str
    message: str
    warning: bool = True

    @property
    def name(self) -> str:
        """The same for the same event about the same object."""
        text = "\0".join((self.about.kind, self.about.uid, self.reason, self.message))
        return f"{self.about.name[:200]}.{blake2b(text.encode(), digest_size=8).hexdigest()}"

    @property
    def namespace(self) -> str:
        """An Event is in a namespace even if its object is in none."""
        return self.about.namespace or "default"


def of_attach(event: AttachEvent) -> Notable | None:
    match event:
        case AttachFailed() if event.pod_namespace:
            return Notable(
                about=_pod(event.pod_namespace, event.pod_name, event.pod_uid),
                reason="AttachFailed",
                message=f"interface {event.ifname} on node {event.node}: {event.message}",
            )
        case SweepStopped():
            message = (
                f"{event.gone} of {event.attachments} attachments of the node are gone at once, which is not believed:"
                " nothing was released; `orbweaver doctor` shows them"
            )
            return Notable(about=_node(event.node), reason="SweepStopped", message=message)
        case _:
            return None


def of_disagreement(event: DisagreementEvent) -> Notable:
    about = (
        _pod(event.pod_namespace, event.pod_name, event.pod_uid) if event.pod_namespace else _node(event.node)
    )
    match event:
        case DisagreementAppeared():
            message = f"{event.sentence}; what settles it: {event.settles}"
            return Notable(about=about, reason="LeaseDisagreement", message=message)
        case DisagreementSettled():
            message = f"settled: {event.sentence}"
            return Notable(about=about, reason="LeaseDisagreementSettled", message=message, warning=False)


def of_coordinator(name: str, uid: str, reason: str, message: str, *, warning: bool = True) -> Notable:
    about = About(api_version=API_VERSION, kind="SpiderCoordinator", name=name, uid=uid)
    return Notable(about=about, reason=reason, message=message, warning=warning)


def body_of(notable: Notable, reporter: str, count: int, first_s: float, now_s: float) -> Json:
    """core/v1 Event that happened `count` times, first at `first_s` and now; times are Unix time."""
    about = notable.about
    involved: Json = {"apiVersion": about.api_version, "kind": about.kind, "name": about.name}
    if about.namespace:
        involved["namespace"] = about.namespace
    if about.uid:
        involved["uid"] = about.uid
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": notable.name, "namespace": notable.namespace},
        "involvedObject": involved,
        "reason": notable.reason,
        "message": notable.message[:MESSAGE_MAX_CHARS],
        "type": "Warning" if notable.warning else "Normal",
        "count": count,
        "firstTimestamp": _stamp(first_s),
        "lastTimestamp": _stamp(now_s),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": reporter,
    }


def _stamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pod(namespace: str, name: str, uid: str) -> About:
    return About(api_version="v1", kind="Pod", namespace=namespace, name=name, uid=uid)


def _node(name: str) -> About:
    # the kubelet's own events name a Node by its name in place of the UID
    return About(api_version="v1", kind="Node", name=name, uid=name)
