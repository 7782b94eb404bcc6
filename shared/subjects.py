"""The subjects of the bus: builders, streams and the table of who may do what.

Owns every subject string; nobody formats one by hand. NATS permissions are generated from `IDENTITIES`.
Must not know the client library or any message's content.
"""

from __future__ import annotations

import re

import msgspec

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_OTHER = re.compile(rb"[^A-Za-z0-9_-]")


def token(text: str) -> str:
    """Encodes any text as one subject token: `[A-Za-z0-9_-]` stay, other bytes become `=XX`, empty is `_`.

    A text that is exactly `_` becomes `=5F`, so that the encoding stays one-to-one.
    """
    if not text:
        return "_"
    if text == "_":
        return "=5F"
    if _PLAIN.fullmatch(text):
        return text
    return _OTHER.sub(lambda found: b"=%02X" % found[0][0], text.encode()).decode()


def untoken(encoded: str) -> str:
    """The inverse of `token`. Raises ValueError on a token that `token` cannot have made."""
    if encoded == "_":
        return ""
    raw = bytearray()
    i = 0
    while i < len(encoded):
        if encoded[i] == "=":
            raw.append(int(encoded[i + 1 : i + 3], 16))
            i += 3
        else:
            raw.append(ord(encoded[i]))
            i += 1
    text = raw.decode()
    if token(text) != encoded:
        raise ValueError(f"{encoded!r} is not an encoded token")
    return text


def cni(node: str) -> str:
    return f"orb.cni.{token(node)}"


def allocate(node: str) -> str:
    return f"orb.ipam.allocate.{token(node)}"


ALLOCATE_ALL = "orb.ipam.allocate.*"
IPAM_QUERY = "orb.ipam.query"
IPAM_EXPLAIN = "orb.ipam.explain"
IPAM_COLLECT = "orb.ipam.collect"
IPAM_ADOPT = "orb.ipam.adopt"
ASK_FACTS = "orb.ask.facts"
ASK_SYNC = "orb.ask.sync"
ASK_MIRRORED = "orb.ask.mirrored"
MARK = "orb.mark"
"""The leading allocator tells the controller which mark to keep for all replicas."""


def ask_service(service: str) -> str:
    """Any service answers its status here: `orb.ask.service.<service>`; replicas and nodes are part of the name."""
    return f"orb.ask.service.{token(service)}"


def ask_replicas(service: str) -> str:
    """Every replica of a service of the hub answers its status here too, so that who knows no names finds them: an instance without
    one, which each may subscribe to as to its own."""
    return f"{ask_service(service)}.{token('')}"


ASK_SERVICE_ALL = "orb.ask.service.>"


def ask_agent(node: str) -> str:
    return f"orb.ask.agent.{token(node)}"


def ask_detach(node: str) -> str:
    return f"orb.ask.detach.{token(node)}"


def release(node: str) -> str:
    return f"orb.release.{token(node)}"


RELEASE_ALL = "orb.release.*"


def lease(incarnation: str, term: int) -> str:
    return f"orb.lease.{token(incarnation)}.{term}"


LEASE_ALL = "orb.lease.>"


def snapshot(incarnation: str, sequence: int, part: str) -> str:
    """`part` is a chunk number or `manifest`."""
    return f"orb.snapshot.{token(incarnation)}.{sequence}.{part}"


SNAPSHOT_ALL = "orb.snapshot.>"
LEAD_ALL = "orb.lead.>"


def lead(service: str) -> str:
    return f"orb.lead.{token(service)}"


def facts(kind: str, namespace: str, name: str) -> str:
    """`kind` is the manifest's Kind; a cluster-scoped object has an empty namespace."""
    return f"orb.facts.{token(kind)}.{token(namespace)}.{token(name)}"


FACTS_ALL = "orb.facts.>"
FACTS_OF_NODES = "orb.facts.Node._.*"
FACTS_SYNCED = "orb.facts.synced._._"
FACTS_TERM = "orb.facts.term._._"
"""Whose turn it is to tell facts; kinds of objects begin with a capital letter."""


def attach(node: str) -> str:
    return f"orb.attach.{token(node)}"


ATTACH_ALL = "orb.attach.*"


def span(service: str, node: str = "") -> str:
    """`orb.span.<service>` for hub services, `orb.span.<service>.<node>` for those of a node."""
    return f"orb.span.{token(service)}" + (f".{token(node)}" if node else "")


SPAN_ALL = "orb.span.>"


def witness(node: str) -> str:
    return f"orb.witness.{token(node)}"


WITNESS_ALL = "orb.witness.*"
ASK_WITNESS_ALL = "orb.ask.witness"


def ask_witness(node: str) -> str:
    return f"{ASK_WITNESS_ALL}.{token(node)}"


def disagreement(node: str) -> str:
    """What witnesses disagree on about a node."""
    return f"orb.disagreement.{token(node)}"


DISAGREEMENT_ALL = "orb.disagreement.*"


def rdma(node: str, verb: str) -> str:
    """`verb` is `claim` or `release`."""
    return f"orb.rdma.{token(node)}.{token(verb)}"


def inventory(node: str) -> str:
    return f"orb.inventory.{token(node)}"


INVENTORY_ALL = "orb.inventory.*"


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream is created and asserted. `durable` streams hold leases: fsync before ack, never rebuilt from elsewhere."""

    name: str
    subjects: tuple[str, ...]
    durable: bool = False
    memory: bool = False
    work_queue: bool = False
    max_age_s: float = 0.0
    last_per_subject: bool = False
    deny_delete: bool = False
    message_ttl: bool = False
    max_bytes: int = -1
    """Beyond it the oldest go: what nodes tell freely must fill neither memory nor disk, which the lease log needs too."""
    subject_max_messages: int = -1
    """Beyond it a message of that subject is refused: nobody's may be dropped, and each node has a subject of its own."""


LEASES = StreamSpec(name="LEASES", subjects=(LEASE_ALL,), durable=True, deny_delete=True)
SNAPSHOTS = StreamSpec(name="SNAPSHOTS", subjects=(SNAPSHOT_ALL,), durable=True)
RELEASES = StreamSpec(
    name="RELEASES", subjects=(RELEASE_ALL,), durable=True, work_queue=True, subject_max_messages=10_000
)
LEAD = StreamSpec(name="LEAD", subjects=(LEAD_ALL,), last_per_subject=True, message_ttl=True)
"""On disk: of three servers two may go at once, and a memory stream then has no leader until the last is back (tried, 2.15.1)."""
FACTS = StreamSpec(name="FACTS", subjects=(FACTS_ALL,), last_per_subject=True, message_ttl=True)
ATTACH = StreamSpec(name="ATTACH", subjects=(ATTACH_ALL,), max_age_s=24 * 3600.0, max_bytes=512 << 20)
SPANS = StreamSpec(name="SPANS", subjects=(SPAN_ALL,), memory=True, max_age_s=3600.0, max_bytes=128 << 20)
INVENTORY = StreamSpec(name="INVENTORY", subjects=(INVENTORY_ALL,), last_per_subject=True)
DISAGREEMENTS = StreamSpec(
    name="DISAGREEMENTS", subjects=(DISAGREEMENT_ALL,), max_age_s=30 * 24 * 3600.0, max_bytes=8 << 20
)
STREAMS: tuple[StreamSpec, ...] = (
    LEASES,
    SNAPSHOTS,
    RELEASES,
    LEAD,
    FACTS,
    ATTACH,
    SPANS,
    INVENTORY,
    DISAGREEMENTS,
)


def inbox(identity: str) -> str:
    """The prefix of the reply inboxes of a hub service, or `shim`."""
    return f"_INBOX_{token(identity)}"


def node_inbox(node: str, identity: str = "") -> str:
    """The prefix of the reply inboxes of one identity of a node, or of all of the node; apart from `inbox`, so that no node's name
    can meet a service's."""
    return f"_INBOX_node.{token(node)}" + (f".{token(identity)}" if identity else "")


def tools_inbox(node: str) -> str:
    """The prefix of the inboxes in which a tool awaits the answers of one node.

    A hub does not extend `allow_responses` over a leaf link (nats-server 2.15.1), so the link must name where it may answer;
    one prefix a node keeps a node from answering in another's name.
    """
    return f"{inbox('tools')}.{token(node)}"


def allocator_inbox(node: str) -> str:
    """The prefix of the inboxes in which the allocators await the answers of one node, as `tools_inbox`."""
    return f"{inbox('allocator')}.{token(node)}"


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What one identity may publish and subscribe; `responds_s` > 0 lets it answer a request within that time."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds_s: float = 0.0


_API = ("$JS.API.INFO",)


def _stream_api(*names: str) -> tuple[str, ...]:
    """The JetStream API subjects that a reader of these streams needs."""
    out: list[str] = list(_API)
    for name in names:
        out += [
            f"$JS.API.STREAM.INFO.{name}",
            f"$JS.API.STREAM.MSG.GET.{name}",
            f"$JS.API.DIRECT.GET.{name}",
            f"$JS.API.DIRECT.GET.{name}.>",
            f"$JS.API.CONSUMER.CREATE.{name}",
            f"$JS.API.CONSUMER.CREATE.{name}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{name}.>",
            f"$JS.API.CONSUMER.INFO.{name}.>",
            f"$JS.API.CONSUMER.DELETE.{name}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{name}.>",
            f"$JS.ACK.{name}.>",
            f"$JS.FC.{name}.>",
        ]
    return tuple(out)


def _stream_owner(*names: str) -> tuple[str, ...]:
    out: list[str] = []
    for name in names:
        out += [
            f"$JS.API.STREAM.CREATE.{name}",
            f"$JS.API.STREAM.UPDATE.{name}",
            f"$JS.API.STREAM.PURGE.{name}",
        ]
    return tuple(out) + _stream_api(*names)


HUB_IDENTITIES: dict[str, Permissions] = {
    "allocator": Permissions(
        publish=(
            LEASE_ALL,
            SNAPSHOT_ALL,
            lead("allocator"),
            ASK_FACTS,
            ASK_SYNC,
            ASK_MIRRORED,
            ASK_WITNESS_ALL,
            f"{ASK_WITNESS_ALL}.*",
            "orb.ask.detach.*",
            span("allocator"),
            MARK,
            DISAGREEMENT_ALL,
            *_stream_owner("LEASES", "SNAPSHOTS", "LEAD", "RELEASES", "SPANS", "DISAGREEMENTS"),
            *_stream_api("FACTS"),
        ),
        subscribe=(
            f"{inbox('allocator')}.>",
            "orb.ipam.>",
            WITNESS_ALL,
            f"{ask_service('allocator')}.*",
        ),
        responds_s=60.0,
    ),
    "controller": Permissions(
        publish=(
            FACTS_ALL,
            IPAM_QUERY,
            IPAM_ADOPT,
            lead("controller"),
            span("controller"),
            *_stream_owner("FACTS", "LEAD", "ATTACH", "SPANS", "INVENTORY"),
            *_stream_api("LEASES", "DISAGREEMENTS"),
        ),
        subscribe=(
            f"{inbox('controller')}.>",
            MARK,
            ASK_MIRRORED,
            ASK_FACTS,
            ASK_SYNC,
            f"{ask_service('controller')}.*",
        ),
        responds_s=60.0,
    ),
    "webhook": Permissions(
        publish=(IPAM_QUERY, IPAM_EXPLAIN, span("webhook"), *_stream_api("FACTS", "INVENTORY")),
        subscribe=(f"{inbox('webhook')}.>", f"{ask_service('webhook')}.*"),
        responds_s=60.0,
    ),
    "roster": Permissions(publish=_stream_api("FACTS"), subscribe=(f"{inbox('roster')}.>",)),
    "tools": Permissions(
        publish=(
            IPAM_QUERY,
            IPAM_EXPLAIN,
            IPAM_COLLECT,
            ASK_SYNC,
            ASK_SERVICE_ALL,
            "orb.ask.agent.*",
            *_stream_api("LEASES", "FACTS", "ATTACH", "SPANS", "INVENTORY", "DISAGREEMENTS"),
        ),
        subscribe=(f"{inbox('tools')}.>",),
    ),
}
"""Identities that connect to the hub. Replicas of a service share one identity; each has inboxes of its own below the prefix."""


def leaf_link(node: str) -> Permissions:
    """What the hub lets the leaf link of one node carry, whatever that node's configuration says.

    `publish` is what the node may send to the hub, `subscribe` what it may receive.
    """
    return Permissions(
        publish=(
            allocate(node),
            release(node),
            attach(node),
            witness(node),
            inventory(node),
            span("agent", node),
            span("rdma", node),
            f"{tools_inbox(node)}.>",
            f"{allocator_inbox(node)}.>",
        ),
        subscribe=(
            f"{node_inbox(node)}.>",
            ask_agent(node),
            ask_detach(node),
            ASK_WITNESS_ALL,
            ask_witness(node),
            f"{ask_service('agent')}.{token(node)}",
            f"{ask_service('rdma')}.{token(node)}",
        ),
        responds_s=60.0,
    )


def node_identities(node: str) -> dict[str, Permissions]:
    """The local users of one node's leaf. The shim's subjects never leave the node."""
    return {
        "agent": Permissions(
            publish=(
                allocate(node),
                release(node),
                attach(node),
                witness(node),
                f"orb.rdma.{token(node)}.*",
                span("agent", node),
            ),
            subscribe=(
                cni(node),
                f"{node_inbox(node, 'agent')}.>",
                ask_agent(node),
                ask_detach(node),
                ASK_WITNESS_ALL,
                ask_witness(node),
                f"{ask_service('agent')}.{token(node)}",
            ),
            responds_s=300.0,
        ),
        "rdma": Permissions(
            publish=(inventory(node), span("rdma", node)),
            subscribe=(
                f"orb.rdma.{token(node)}.*",
                f"{node_inbox(node, 'rdma')}.>",
                f"{ask_service('rdma')}.{token(node)}",
            ),
            responds_s=60.0,
        ),
        "shim": Permissions(publish=(cni(node),), subscribe=(f"{inbox('shim')}.>",)),
    }


LEAF_DENY: tuple[str, ...] = ("orb.cni.>", f"{inbox('shim')}.>")
"""Denied for import and export on every leaf remote: else a client of one node could command another node's agent."""
