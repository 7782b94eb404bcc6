"""What is fuzzed: for each entrance of the product its good inputs, and what must hold whatever comes in.

A judge gets bytes and raises whatever it likes where a promise is broken: an exception that the entrance does not name in its
docstring, an answer that contradicts itself. How inputs are made and counted is the runner's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cni.config import Config
from cni.shim import quote, version_asked
from cni.wire import Wire, WireError
from services.agent import config as network
from services.agent import record
from services.agent import result as answer
from services.agent.entry import Entry
from services.allocator import snapshot
from services.allocator.audit import audit
from services.allocator.log import LogBroken, fold_message
from services.allocator.state import State
from services.webhook import review
from shared import subjects
from shared.admission.judge import judge_files
from shared.admission.view import Objects
from shared.bus import StreamMessage
from shared.contracts.codec import Codec, MessageError, encode
from shared.contracts.ipam import Mark
from shared.contracts.lease import (
    RECORD,
    LeaseItem,
    LeasesAllocated,
    LeasesReleased,
    Record,
    TermStarted,
    digest,
)
from shared.errors import OrbweaverError
from shared.manifests import annotations, networks
from shared.manifests import settings as configuration
from shared.manifests.document import parse, typed
from tests.contract.examples import EXAMPLES, MODULES, golden_bytes
from tests.property.test_garbage_manifests import GOOD
from tests.support.snapshot import cut


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """`share` of all inputs, in thousandths. `words` are what the entrance reads that chance would not find.

    `guided`: plain Python, where feedback by coverage finds more than chance."""

    name: str
    share: int
    seeds: tuple[bytes, ...]
    judge: Callable[[bytes], None]
    words: tuple[bytes, ...] = ()
    guided: bool = False


def _chance(data: bytes) -> random.Random:
    """Further choices, made from the input itself."""
    return random.Random(zlib.crc32(data))


def _same(a: object, b: object) -> bool:
    return a == b or repr(a) == repr(b)  # NaN is unequal to itself


# -- contracts


CODECS: tuple[Codec[Any], ...] = tuple(
    value for module in MODULES for value in vars(module).values() if isinstance(value, Codec)
)


def _judge_contracts(data: bytes) -> None:
    """A message or MessageError; a message survives being sent on."""
    for codec in CODECS:
        try:
            message = codec.decode(data)
        except MessageError as error:
            assert len(str(error)) < 2000, "an error that repeats its input"
            continue
        assert _same(codec.decode(encode(message)), message)


# -- the shim


_ANSWERS = (
    b'INFO {"server_id":"x","headers":true}\r\n+OK\r\n',
    b"PING\r\nPONG\r\n",
    b"-ERR 'Authorization Violation'\r\n",
    b"HMSG _INBOX_shim.a.1 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
    b'HMSG _INBOX_shim.a.1 1 25 35\r\nNATS/1.0\r\nOrb-Exit: 0\r\n\r\n{"ips":[]}\r\n',
    b"MSG _INBOX_shim.a.1 1 2\r\n{}\r\n",
)


def _judge_wire(data: bytes) -> None:
    """Events or WireError, the same however the bytes are cut; nothing grows without end."""
    chance = _chance(data)
    whole, pieces = Wire(), Wire()
    try:
        events = whole.feed(data)
    except WireError:
        events = None
    found: list[object] = []
    at = 0
    try:
        while at < len(data):
            size = 1 + int(chance.expovariate(0.05))
            found += pieces.feed(data[at : at + size])
            at += size
        assert events is not None and list(map(type, found)) == list(map(type, events))
    except WireError:
        assert events is None


def _judge_shim_configuration(data: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError, RecursionError):
        Config(data)
    assert version_asked(data) in (b"", *(version.encode() for version in network.VERSIONS))
    assert isinstance(json.loads(quote(data)), str)


# -- the agent


_NATIVE = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "type": "orbweaver",
    "cniType": "macvlan",
    "master": ["eth1"],
    "mtu": 1400,
    "ippools": {"ipv4": ["v4"], "ipv6": ["v6"]},
}
_BODIES = tuple(
    json.dumps(body).encode()
    for body in (
        _NATIVE,
        {**_NATIVE, "cniVersion": "0.3.1", "network": "kube-system/m"},
        {**_NATIVE, "macvlan": {"master": "eth1", "vlanID": 5, "bond": {"name": "b", "mode": 1}}},
        {
            "cniVersion": "1.1.0",
            "name": "n",
            "type": "macvlan",
            "master": "eth0",
            "ipam": {"type": "spiderpool"},
        },
        {
            "cniVersion": "1.0.0",
            "name": "n",
            "type": "coordinator",
            "mode": "disable",
            "prevResult": {"ips": []},
        },
        {"cniVersion": "1.0.0", "name": "n", "type": "ifacer", "interfaces": ["eth1"]},
        {
            "cniVersion": "1.1.0",
            "name": "n",
            "type": "orbweaver",
            "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
        },
    )
)


def judge_stdin(data: bytes) -> None:
    """A configuration or an OrbweaverError whose CNI error object is one, in a version that is spoken."""
    version = network.version_of(data)
    assert version in network.VERSIONS
    for plugin in ("orbweaver", "spiderpool", "coordinator", "ifacer", ""):
        try:
            found = network.parse(data, plugin)
            if isinstance(found, network.PassThrough):
                assert isinstance(msgspec.json.decode(found.result), dict)
        except OrbweaverError as error:
            _demand_error_object(answer.render_error(error, version), version)
    with contextlib.suppress(OrbweaverError):
        network.envelope(data)
    with contextlib.suppress(OrbweaverError, UnicodeDecodeError):
        network.link_of_network("kube-system/m", data.decode())


def _demand_error_object(text: bytes, version: str) -> None:
    shown = msgspec.json.decode(text)
    assert shown["cniVersion"] == version and shown["code"] > 0 and shown["msg"]
    assert len(text) < 20_000, "an error that repeats its input"


_ENTRY = Entry(
    container_id="c1",
    ifname="eth0",
    state="completed",
    mode="native",
    attempt="a" * 32,
    boot_id="b",
    netns="/run/netns/p",
    device=4,
    inode=4026531840,
    network="underlay",
    mac="02:00:00:00:00:01",
    addresses=("10.6.0.1/16",),
)
_MARK = Mark(incarnation="i", sequence=7, digest="00ff")
_JOURNAL = b"".join(
    map(
        record.frame,
        (
            record.Opened(seen=_MARK),
            record.Put(entry=_ENTRY, seen=_MARK),
            record.Put(entry=msgspec.structs.replace(_ENTRY, ifname="net1", state="releasing")),
            record.Drop(container_id="c1", ifname="eth0"),
        ),
    )
)
_ENTRIES = record.replay(_JOURNAL).entries
_HEAD = struct.Struct("<4sII")


def _judge_journal(data: bytes) -> None:
    """Whatever a disk gives back is replayed; what is whole before a bad place counts. Half of the inputs have checksums that fit."""
    chance = _chance(data)
    if chance.random() < 0.5:
        length = struct.pack("<I", len(data))
        data = _HEAD.pack(b"ORBJ", len(data), zlib.crc32(data, zlib.crc32(length))) + data
    found = record.replay(_JOURNAL + data + bytes(chance.randrange(64)))
    if b"ORBJ" not in data:
        assert found.entries == _ENTRIES, "a torn end took something with it"
    again = record.replay(b"".join(record.frame(record.Put(entry=entry)) for entry in found.entries.values()))
    assert again.entries == found.entries and not again.problems


# -- the allocator


def _items(first: int) -> tuple[LeaseItem, ...]:
    return (
        LeaseItem(ifname="eth0", address=f"10.6.0.{first}", pool="v4", prefix_len=16),
        LeaseItem(ifname="eth0", address=f"fd00::{first:x}", pool="v6", prefix_len=64),
    )


def _record(state: State, events: tuple[Any, ...]) -> Record:
    return Record(incarnation="i1", term=1, at_ns=state.at_ns + 1, previous=state.digest, events=events)


def _history() -> tuple[bytes, ...]:
    """The records of a short life, each as it stands in the log."""
    state, out = State(), []
    lives: list[tuple[Any, ...]] = [(TermStarted(replica="allocator-0"),)]
    for n in range(1, 4):
        lives.append(
            (
                LeasesAllocated(
                    owner=f"uid-{n}",
                    node="n1",
                    container_id=f"c{n}",
                    attempt=f"{n:032x}",
                    generation=n,
                    items=_items(n),
                    attached=("eth0",),
                    pod_namespace="shop",
                    pod_name=f"web-{n}",
                ),
            )
        )
    lives.append((LeasesReleased(owner="uid-2", ifnames=("eth0",), reason="DEL", rest_until_ns=9),))
    for events in lives:
        payload = encode(_record(state, events))
        out.append(payload)
        _fold(state, payload)
    return tuple(out)


def _fold(state: State, payload: bytes) -> None:
    message = StreamMessage(
        subject=subjects.lease("i1", 1), data=payload, headers={}, sequence=state.sequence + 1, pending=0
    )
    fold_message(state, message)


_HISTORY = _history()
_EVENTS = tuple(
    golden_bytes(name) for name in EXAMPLES if name.startswith(("leases.", "attach", "term", "attempt"))
)


def _judge_lease_log(data: bytes) -> None:
    """A record that is none, is altered or does not follow is LogBroken. Half of the inputs follow by digest and say anything."""
    state = State()
    chance = _chance(data)
    upto = chance.randrange(len(_HISTORY))
    for payload in _HISTORY[:upto]:
        _fold(state, payload)
    if chance.random() < 0.5:
        with contextlib.suppress(MessageError):
            made = RECORD.decode(data)
            data = encode(
                msgspec.structs.replace(made, version=1, incarnation="i1", term=1, previous=state.digest)
            )
    before = state.digest
    try:
        _fold(state, data)
    except LogBroken as error:
        assert state.digest == before
        assert len(str(error)) < 4000
        return
    assert state.digest == digest(data)
    manifest, chunks = cut(state.snapshot())
    State.from_snapshot(snapshot.join(manifest, chunks))
    audit(state)


def _whole_state() -> State:
    state = State()
    for payload in _HISTORY:
        _fold(state, payload)
    return state


_SNAPSHOT = encode(_whole_state().snapshot())


def _judge_snapshot(data: bytes) -> None:
    """As `load_newest` reads it: a state, or one of the errors by which a snapshot is passed over. The digest is made to fit."""
    chance = _chance(data)
    manifest, _ = cut(_whole_state().snapshot())
    chunks = [data[at : at + 300] for at in range(0, len(data), 300)]
    if chance.random() < 0.9:
        manifest = msgspec.structs.replace(
            manifest, chunks=len(chunks), size_bytes=len(data), sha256=hashlib.sha256(data).digest()
        )
    try:
        state = State.from_snapshot(snapshot.join(manifest, chunks))
    except (MessageError, KeyError, msgspec.MsgspecError):
        return
    assert state.sequence == manifest.sequence
    audit(state)


# -- what users write


_ANNOTATIONS = tuple(
    text.encode()
    for text in (
        '{"interface":"eth0","ipv4":["v4-*"],"ipv6":["v6"]}',
        '[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv6":["b"],"cleangateway":true}]',
        '[{"dst":"10.0.0.0/16","gw":"10.1.0.1"},{"dst":"fd00::/64","gw":"fd01::1"}]',
        '["default-[a-z]?","pool.*"]',
        "kube-system/macvlan@net1,other@net2",
        '[{"name":"macvlan","namespace":"kube-system","interface":"net1","ips":["10.0.0.1/8"],"mac":"02:00:00:00:00:01"}]',
        "+3",
        "true",
        "eth0",
        "enableIPv4: true\nclusterDefaultIPv4IPPool: [a]\nclusterSubnetDefaultFlexibleIPNumber: 1\n",
    )
)
_READERS: Mapping[str, Callable[[str], object]] = {
    "ippool": annotations.ippool,
    "ippools": annotations.ippools,
    "subnet": annotations.subnet,
    "subnets": annotations.subnets,
    "routes": annotations.routes,
    "default_route_nic": annotations.default_route_nic,
    "ip_number": annotations.ip_number,
    "reclaim": annotations.reclaim,
    "default_pools": lambda text: annotations.default_pools(text, annotations.DEFAULT_IPV4_IPPOOL),
    "namespace_defaults": lambda text: annotations.namespace_defaults(
        {annotations.DEFAULT_IPV6_IPPOOL: text}
    ),
    "networks": lambda text: networks.networks(text, "shop"),
    "default_network": lambda text: networks.default_network(text, "shop"),
    "settings": configuration.parse,
}


def judge_annotations(data: bytes) -> None:
    """A value, or Invalid with a sentence that does not repeat all that was written."""
    text = data.decode(errors="replace")
    for name, read in _READERS.items():
        found = read(text)
        errors = getattr(found, "errors", ())
        assert all(error.message for error in errors), name
        assert all(len(error.message) < 4000 for error in errors), name
        assert not (hasattr(found, "errors") and not errors), name


def judge_manifests(data: bytes) -> None:
    """Every object of a file is in force or has its problems, with a line of the file."""
    file = parse(data, "x.yaml")
    lines = data.count(b"\n") + data.count(b"\r") + 2
    for document in file.documents:
        typed(document)
        for error in document.errors:
            assert error.message and 0 <= document.line_of(error.field) <= lines
    for judgement in judge_files([file], Objects()):
        assert judgement is not None


_REVIEW = json.dumps(
    {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": {"group": "spiderpool.spidernet.io", "version": "v2beta1", "kind": "SpiderIPPool"},
            "operation": "CREATE",
            "name": "v4",
            "namespace": "",
            "object": {"metadata": {"name": "v4"}, "spec": {"subnet": "10.6.0.0/16"}},
        },
    }
).encode()


def _judge_review(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        review.decode(data)


def _judge_tokens(data: bytes) -> None:
    """What is no encoded token is a ValueError; what is, is the encoding of one text only."""
    text = data.decode(errors="replace")
    assert subjects.untoken(subjects.token(text)) == text
    with contextlib.suppress(ValueError):
        assert subjects.token(subjects.untoken(text)) == text


TARGETS: tuple[Target, ...] = (
    Target(
        name="contracts",
        share=320,
        seeds=tuple(map(golden_bytes, EXAMPLES)),
        judge=_judge_contracts,
        words=tuple(name.encode() for name in EXAMPLES),
    ),
    Target(
        name="wire",
        share=155,
        seeds=_ANSWERS,
        judge=_judge_wire,
        words=(b"HMSG ", b"MSG ", b"Orb-Exit: ", b" 12 12\r\n", b"999999999"),
        guided=True,
    ),
    Target(
        name="shim-configuration",
        share=70,
        seeds=(
            b'{"server":"127.0.0.1:4222","user":"shim","password":"p\\u00e9","node":"n1","subject":"orb.cni.n1",'
            b'"netns":"","deadlines_s":{"ADD":60,"DEL":1e2}}',
        ),
        judge=_judge_shim_configuration,
        words=(b'"cniVersion"', b'"server"', b"\\u", b"\\ud800"),
        guided=True,
    ),
    Target(
        name="stdin",
        share=110,
        seeds=_BODIES,
        judge=judge_stdin,
        words=(b'"cniVersion"', b'"ipam"', b'"master"', b'"network"', b'"mtu"', b"0.3.1", b'"ippools"'),
        guided=True,
    ),
    Target(
        name="journal",
        share=60,
        seeds=(_JOURNAL, _JOURNAL[:40], encode(record.Put(entry=_ENTRY))),
        judge=_judge_journal,
        words=(b"ORBJ", b"put.1", b"drop.1"),
    ),
    Target(
        name="lease-log",
        share=60,
        seeds=(*_HISTORY, golden_bytes("lease.record.1"), *_EVENTS),
        judge=_judge_lease_log,
        words=(b"10.6.0.1", b"fd00::1", b"eth0", b"uid-1"),
    ),
    Target(
        name="snapshot", share=50, seeds=(_SNAPSHOT,), judge=_judge_snapshot, words=(b"voided", b"resting")
    ),
    Target(name="annotations", share=70, seeds=_ANNOTATIONS, judge=judge_annotations, guided=True),
    Target(
        name="manifests",
        share=10,
        seeds=tuple(text.encode() for text in GOOD),
        judge=judge_manifests,
        words=(b"---\n", b"&a ", b"*a", b"!!binary ", b"? ", b"|\n", b"kind: List\nitems:\n"),
        guided=True,
    ),
    Target(
        name="review", share=30, seeds=(_REVIEW,), judge=_judge_review, words=(b'"object"', b'"oldObject"')
    ),
    Target(
        name="tokens",
        share=30,
        seeds=(b"n1", b"a.b=2E", b"=E2=82=AC", b"_", b"=5F"),
        judge=_judge_tokens,
        guided=True,
    ),
)
