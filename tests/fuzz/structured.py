"""What hypothesis makes better than chance: values of the right form in strange combinations.

Each is a strategy and a judge; a judge raises where a promise is broken, as those of target.py do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from hypothesis import strategies as st

from services.agent import call, config
from services.agent import result as answer
from shared.contracts.codec import MessageError
from shared.errors import OrbweaverError
from shared.telemetry.context import extract
from tests.fuzz.hostile import COMMANDS, judge_hostile
from tests.fuzz.target import CODECS, judge_annotations, judge_manifests, judge_stdin
from tests.property.test_garbage_manifests import GOOD

NOW_NS = 10_000_000_000_000


class Structured(msgspec.Struct, frozen=True, kw_only=True):
    """`share` of all inputs, in thousandths."""

    name: str
    share: int
    strategy: st.SearchStrategy[Any]
    judge: Callable[[Any], None]


_VERBS = st.sampled_from(("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add", "", "ADD "))
_NAMES = st.sampled_from(("c1", "eth0", "..", "a/b", "x" * 300, "a:b", "é" * 15, "a\nb", "-", "lo"))
_TEXT = st.text(max_size=20) | _NAMES
_PATHS = st.sampled_from(
    (
        "/run/netns/x",
        "/proc/self/ns/net",
        "/proc/thread-self/ns/net",
        "relative",
        "/",
        "/a\0b",
        "//proc/self/ns/net",
    )
)
_ARGS = st.lists(
    st.tuples(
        st.sampled_from(("K8S_POD_NAME", "K8S_POD_NAMESPACE", "K8S_POD_UID", "IgnoreUnknown", "", "X")), _TEXT
    ).map("=".join)
    | _TEXT,
    max_size=5,
).map(";".join)
_NUMBERS = st.integers(-1, 1 << 70).map(str) | st.just(str(NOW_NS - 1)) | _TEXT
_RAW = st.text(alphabet="%0123456789abcdefABCDEFgé/.=;", max_size=12)


def _encoded(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """As the shim encodes a value; or not, so that the decoder sees broken escapes too."""
    return values.map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=" ")) | _RAW


_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Orb-Version": st.sampled_from(("1", "1", "1", "1", "2", "")),
        "Orb-Attempt": st.sampled_from(("a" * 32, "0" * 32, "A" * 32, "", "a" * 33)),
        "Orb-Name": _encoded(st.sampled_from(("orbweaver", "spiderpool", "ifacer", "", "/bin/sh"))),
        "Orb-Start-Ns": _NUMBERS,
        "Orb-Deadline-Ns": _NUMBERS,
        "Cni-Command": _encoded(_VERBS),
        "Cni-Containerid": _encoded(_TEXT),
        "Cni-Netns": _encoded(_PATHS | _TEXT),
        "Cni-Ifname": _encoded(_TEXT),
        "Cni-Args": _encoded(_ARGS),
        "Cni-Path": _encoded(_TEXT),
        "traceparent": st.sampled_from(("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-0-0-0", "ff")) | _TEXT,
        "tracestate": _TEXT,
        "baggage": _TEXT,
    },
)


def _judge_call(given: tuple[dict[str, str], bytes]) -> None:
    """A call within every bound of the CNI specification, or an error that says which variable it is."""
    headers, body = given
    extract(headers)
    try:
        made = call.decode(headers, body, NOW_NS)
    except OrbweaverError as error:
        shown = msgspec.json.decode(answer.render_error(error, config.version_of(body)))
        assert shown["code"] in (4, 6, 122) and shown["msg"] and len(shown["msg"]) < 4000
        return
    if made.verb in ("ADD", "DEL", "CHECK"):
        assert made.container_id and made.ifname
        assert "/" not in made.container_id + made.ifname and made.container_id[0] not in ".-"
        assert len(made.ifname.encode()) <= 15 and made.ifname.isprintable()
    if made.verb in ("ADD", "CHECK"):
        assert made.netns.startswith("/") and "\0" not in made.netns
    assert 0 < made.start_ns <= NOW_NS
    assert abs(made.deadline_ns - NOW_NS) <= 600_000_000_000


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ("eth0", "eth1", "v4", "10.0.0.1", "10.0.0.0/8", "::1", "kube-system/m", "1.0.0", "0.3.1", "macvlan")
    )
)


def _tree(keys: tuple[str, ...]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(keys) | st.text(max_size=6)
    return st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
        max_leaves=12,
    )


_CNI_KEYS = (
    *("cniVersion", "name", "type", "cniType", "master", "mtu", "vlanID", "bond", "ippools", "ipv4", "ipv6"),
    *("network", "macvlan", "ipam", "disableIPAM", "mode", "interfaces", "prevResult"),
    *("cni.dev/valid-attachments", "cni.dev/attachments", "containerID", "ifname", "default_ipv4_ippool"),
)
_CONFIGURATIONS = st.builds(
    lambda head, tree: {**(tree if isinstance(tree, dict) else {}), **head},
    st.fixed_dictionaries(
        {"cniVersion": st.sampled_from(("1.0.0", "0.3.1", "1.1.0")), "name": st.just("n")},
        optional={
            "type": st.sampled_from(("orbweaver", "macvlan", "coordinator", "ifacer")),
            "cniType": st.sampled_from(("macvlan", "ipvlan", "custom")),
            "ipam": st.dictionaries(st.sampled_from(("type", *_CNI_KEYS)), _SCALARS, max_size=4),
        },
    ),
    _tree(_CNI_KEYS),
)
_ANNOTATION_KEYS = (
    "interface",
    "ipv4",
    "ipv6",
    "cleangateway",
    "dst",
    "gw",
    "name",
    "namespace",
    "ips",
    "mac",
)
_DOCUMENTS = tuple(msgspec.yaml.decode(text.split("\n---\n")[0]) for text in GOOD)


def _bytes(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _grafted(document: Any, at: int, graft: Any) -> bytes:
    """`document` with one of its values replaced."""
    places = _places(document)
    return _bytes(_with(document, places[at % len(places)], graft))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], graft: Any) -> Any:
    if not path:
        return graft
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], graft)
    return copy


def _judge_message(tree: Any) -> None:
    """MessagePack of any shape, with tags that exist."""
    try:
        payload = msgspec.msgpack.encode(tree)
    except (OverflowError, UnicodeEncodeError):
        return  # no such bytes
    for codec in CODECS:
        try:
            codec.decode(payload)
        except MessageError:
            continue


STRUCTURED: tuple[Structured, ...] = (
    Structured(name="hostile-node", share=5, strategy=COMMANDS, judge=judge_hostile),
    Structured(
        name="call",
        share=12,
        strategy=st.tuples(_HEADERS, st.binary(max_size=30) | st.just(b'{"cniVersion":"0.3.1"}')),
        judge=_judge_call,
    ),
    Structured(name="configuration", share=6, strategy=_CONFIGURATIONS.map(_bytes), judge=judge_stdin),
    Structured(
        name="annotation-trees",
        share=6,
        strategy=_tree(_ANNOTATION_KEYS).map(_bytes),
        judge=judge_annotations,
    ),
    Structured(
        name="manifest-trees",
        share=3,
        strategy=st.builds(
            _grafted, st.sampled_from(_DOCUMENTS), st.integers(0, 200), _tree(_ANNOTATION_KEYS)
        ),
        judge=judge_manifests,
    ),
    Structured(
        name="message-trees",
        share=3,
        strategy=_tree(("type", "node", "events", "items", "attempt", "leases", "spans", "attributes")),
        judge=_judge_message,
    ),
)
