"""What the commands ask of a running system: leases, attachments, objects, events, spans.

Owns the questions and their paging. Must not know how an answer is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, cast

import msgspec

from services.cli.system import System, every
from shared import subjects
from shared.bus import BusError, BusTimeout, NoResponder, StreamMessage, StreamMissing
from shared.contracts.attach import ATTACH_EVENT, AttachEvent
from shared.contracts.codec import MessageError, encode
from shared.contracts.facts import FACT, ObjectFact
from shared.contracts.query import (
    ATTACHMENTS_PAGE,
    IPAM_ANSWER,
    AllocatorView,
    AttachmentsPage,
    AttachmentView,
    LeasesPage,
    LeaseView,
    QueryAllocator,
    QueryAttachments,
    QueryLeases,
)
from shared.contracts.span import SPAN_BATCH, SpanRecord
from shared.subjects import IPAM_QUERY, StreamSpec

Json = dict[str, Any]
LEADER_TIMEOUT_S = 8.0
"""Leadership changes hands within 2 s: a tool waits for it rather than fail."""
TRY_TIMEOUT_S = 2.0
PAUSE_S = 0.1
AGENT_TIMEOUT_S = 3.0
CHECK_TIMEOUT_S = 20.0
AUDIT_TIMEOUT_S = 30.0
_TIME_MAX_NS = 1 << 62
"""The year 2116: what tells of later is no time."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One object in force, with the file and line it came from."""

    kind: str
    api_version: str
    namespace: str
    name: str
    object: Json
    source: str


async def leases(system: System, query: QueryLeases) -> list[LeaseView]:
    """Every lease that fits, over all pages."""
    found: list[LeaseView] = []
    after = ""
    while True:
        asked = encode(msgspec.structs.replace(query, after=after))
        page = IPAM_ANSWER.decode(await leader(system, IPAM_QUERY, asked))
        if not isinstance(page, LeasesPage):
            raise MessageError("the allocator answered another question")
        found += page.leases
        after = page.next_after
        if not after:
            return found


async def allocator(
    system: System, facts_at_least: int = 0, timeout_s: float = LEADER_TIMEOUT_S, *, audit: bool = False
) -> AllocatorView:
    """The leader's view of itself; with `audit` it checks its whole memory first."""
    query = QueryAllocator(facts_at_least=facts_at_least, audit=audit)
    limit_s = AUDIT_TIMEOUT_S if audit else timeout_s
    payload = encode(query)
    view = IPAM_ANSWER.decode(
        await leader(system, IPAM_QUERY, payload, limit_s, limit_s if audit else TRY_TIMEOUT_S)
    )
    if not isinstance(view, AllocatorView):
        raise MessageError("the allocator answered another question")
    return view


async def leader(
    system: System,
    subject: str,
    payload: bytes,
    timeout_s: float = LEADER_TIMEOUT_S,
    try_timeout_s: float = TRY_TIMEOUT_S,
) -> bytes:
    """A leader's answer to a question, which is asked again while leadership changes hands or its process starts anew.

    Raises NoResponder or BusTimeout when nobody leads for that long."""
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        try:
            return (await system.bus.request(subject, payload, min(left_s, try_timeout_s))).data
        except (NoResponder, BusTimeout):
            if time.monotonic() + PAUSE_S >= deadline:
                raise
            await asyncio.sleep(PAUSE_S)


async def attachments(
    system: System, node: str = "", check: bool = False
) -> dict[str, tuple[AttachmentView, ...] | BusError]:
    """By node, of every node or of one; `check` has each compared with the kernel. A node that is silent has its error."""
    nodes = [n.name for n in system.file.nodes if not node or n.name == node]
    pages = await every({name: _page(system, name, QueryAttachments(check=check)) for name in nodes})
    return {name: page if isinstance(page, BusError) else page.attachments for name, page in pages.items()}


async def journals_and_kernels(system: System) -> dict[str, AttachmentsPage | BusError]:
    """By node, its attachments compared with the kernel, and what its kernel shows beside them. As `attachments`."""
    asked = QueryAttachments(check=True, strays=True)
    return await every({node.name: _page(system, node.name, asked) for node in system.file.nodes})


async def _page(system: System, node: str, asked: QueryAttachments) -> AttachmentsPage:
    bus = await system.node_bus(node)
    limit_s = CHECK_TIMEOUT_S if asked.check else AGENT_TIMEOUT_S
    answer = await bus.request(subjects.ask_agent(node), encode(asked), limit_s)
    page = ATTACHMENTS_PAGE.decode(answer.data)
    # a node tells of itself only
    mine = tuple(view for view in page.attachments if view.node == node)
    return AttachmentsPage(attachments=mine, strays=page.strays)


async def facts(system: System, kind: str = "", namespace: str = "", name: str = "") -> list[Fact]:
    """Objects in force that fit every non-empty argument, in the order of kind, namespace and name."""
    tokens = (subjects.token(kind) if kind else "*", "*" if not namespace else subjects.token(namespace))
    subject = f"orb.facts.{tokens[0]}.{tokens[1]}.{subjects.token(name) if name else '*'}"
    found: list[Fact] = []
    for message in await _read(system, subjects.FACTS, subject, last_per_subject=True):
        try:
            fact = FACT.decode(message.data)
        except MessageError:
            continue  # a newer controller's, perhaps: the services count it
        if isinstance(fact, ObjectFact):
            found.append(
                Fact(
                    kind=fact.kind,
                    api_version=fact.api_version,
                    namespace=fact.namespace,
                    name=fact.name,
                    object=cast("Json", msgspec.json.decode(fact.object)),
                    source=fact.source,
                )
            )
    return sorted(found, key=lambda f: (f.kind, f.namespace, f.name))


async def was_known(system: System, kind: str, namespace: str, name: str) -> bool:
    """Is the object in force, or was it within the last day? Its tombstone is kept so long."""
    return bool(
        await _read(system, subjects.FACTS, subjects.facts(kind, namespace, name), last_per_subject=True)
    )


async def events(system: System, node: str = "") -> list[tuple[int, AttachEvent]]:
    """What happened to attachments, oldest first, each with its place in the stream. What is no event of the node that sent it is
    left out: a node may not tell for another, nor keep everybody from reading."""
    subject = subjects.attach(node) if node else subjects.ATTACH_ALL
    found: list[tuple[int, AttachEvent]] = []
    for message in await _read(system, subjects.ATTACH, subject):
        with contextlib.suppress(MessageError):
            happened = ATTACH_EVENT.decode(message.data)
            if message.subject == subjects.attach(happened.node) and 0 <= happened.at_ns < _TIME_MAX_NS:
                found.append((message.sequence, happened))
    return found


async def spans(system: System, after: int = 0) -> tuple[list[SpanRecord], int]:
    """All spans of the last hour that came after place `after` in the stream, and the place of the last. A node's spans of another
    node, or of a service of the hub, are left out."""
    batches = await _read(system, subjects.SPANS, subjects.SPAN_ALL, start_sequence=after + 1)
    found: list[SpanRecord] = []
    for message in batches:
        with contextlib.suppress(MessageError):
            spans = SPAN_BATCH.decode(message.data).spans
            found += [span for span in spans if _may_tell(message.subject, span)]
    return found, batches[-1].sequence if batches else after


def _may_tell(subject: str, span: SpanRecord) -> bool:
    """Is it a span of whoever may publish on `subject`, `orb.span.<service>[.<node>]`?"""
    of_node = subject.count(".") > 2
    sender = subject.rpartition(".")[2] if of_node else ""
    known = span.service not in subjects.HUB_IDENTITIES if of_node else True
    times_ok = 0 <= span.start_ns < _TIME_MAX_NS and 0 <= span.end_ns < _TIME_MAX_NS
    return known and times_ok and (subjects.token(span.node) if span.node else "") == sender


async def _read(
    system: System,
    stream: StreamSpec,
    subject: str,
    *,
    last_per_subject: bool = False,
    start_sequence: int = 1,
) -> list[StreamMessage]:
    try:
        reading = system.bus.read(
            stream.name,
            subject_filter=subject,
            start_sequence=start_sequence,
            last_per_subject=last_per_subject,
        )
        return [message async for message in reading]
    except StreamMissing:
        return []  # nobody has had anything to tell yet
