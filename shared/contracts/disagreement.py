"""What witnesses of leases disagree on: allocator → controller and tools on `orb.disagreement.<node>`. Times are Unix nanoseconds.

Told when one appears and when it is settled, by the leading allocator, which may tell the same again after a change of leaders: `id`
says what is the same.
"""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec


class DisagreementAppeared(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="disagreement.appeared.1"
):
    """`settles` is what ends it, for a person. `addresses` carry no prefix length; the pod is empty where it is about none."""

    id: str
    at_ns: int
    node: str
    sentence: str
    settles: str
    addresses: tuple[str, ...] = ()
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""


class DisagreementSettled(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="disagreement.settled.1"
):
    """The witnesses agree again, or the node is no more. All but the time is as it appeared."""

    id: str
    at_ns: int
    node: str
    sentence: str
    addresses: tuple[str, ...] = ()
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""


DisagreementEvent = DisagreementAppeared | DisagreementSettled
DISAGREEMENT_EVENT: Codec[DisagreementEvent] = Codec(DisagreementEvent)
