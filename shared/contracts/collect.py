"""Collecting what pods left: the leading allocator asks an agent to detach on `orb.ask.detach.<node>`; a tool asks the leading
allocator for its verdicts, or to collect now, on `orb.ipam.collect`.

Owns what is asked and answered. Must not know by which rule a lease is judged.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shared.contracts.codec import Codec
from shared.contracts.ipam import Mark

ASK_DETACH_TIMEOUT_S = 20.0
"""A detach waits for the turn of its attachment, and for the kernel."""

Action = Literal["keep", "release", "detach", "quarantine"]
"""What becomes of a lease: nothing; it is free at once; its node is asked to detach first; it is free, but nobody is given the
address before its node tells."""


class AskDetach(msgspec.Struct, frozen=True, kw_only=True, tag="ask.detach.1"):
    """The pod of this attachment is gone: undo it and release it. Nothing happens unless it still has `generation`, and an attach
    that began after the request arrived is spared."""

    container_id: str
    ifname: str
    generation: int
    reason: str = ""


class DetachAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="ask.detach.answer.1"):
    """`detached`: the release is on its way, durable at the node already. `unknown`: the journal has no such attachment. `newer`:
    it has another generation. `failed`: a link stays, `message` says why; it is tried again by the agent itself."""

    outcome: Literal["detached", "unknown", "newer", "failed"]
    message: str = ""


class Collect(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.collect.1"):
    """Judges every lease now. With `dry_run` nothing is done. The answer is a page of verdicts from after address `after`; with
    `kept` those that stay are told too. Only the first page of a run that is not dry acts."""

    dry_run: bool = True
    kept: bool = True
    after: str = ""
    limit: int = 1000


class LeaseVerdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One lease. `rule` is the short name of the row that fits, `reason` a sentence; `due_ns` is when a kept one is judged otherwise
    if nothing changes (Unix time, 0 = never by itself)."""

    address: str
    pool: str
    interface: str
    action: Action
    rule: str
    reason: str
    pod_namespace: str = msgspec.field(name="podNamespace", default="")
    pod_name: str = msgspec.field(name="podName", default="")
    pod_uid: str = msgspec.field(name="podUID", default="")
    node: str = ""
    container_id: str = msgspec.field(name="containerID", default="")
    generation: int = 0
    due_ns: int = msgspec.field(name="dueNS", default=0)


class Verdicts(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.collect.verdicts.1"):
    """`counts` are leases of this page by action, those that are not told included. `held_back` says why nothing is collected now, empty where it is."""

    verdicts: tuple[LeaseVerdict, ...]
    counts: dict[str, int] = {}
    next_after: str = ""
    held_back: str = ""
    mark: Mark = Mark()


ASK_DETACH: Codec[AskDetach] = Codec(AskDetach)
DETACH_ANSWER: Codec[DetachAnswer] = Codec(DetachAnswer)
COLLECT: Codec[Collect] = Codec(Collect)
VERDICTS: Codec[Verdicts] = Codec(Verdicts)
