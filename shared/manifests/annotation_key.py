"""The names of annotations: which look like ours, on which objects each is read, and which one a misspelt one is near.

Owns the sentences about names that nobody reads, and about members of values that nobody reads. Must not know what a value leads
to (annotations.py, networks.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import cast

import msgspec

from shared.manifests import annotations as notes
from shared.manifests.lenient import TEXT_MAX_BYTES
from shared.manifests.networks import DEFAULT_NETWORK, NETWORKS
from shared.manifests.problem import FieldError, entry, invalid

OURS = "^[^/]*(spidernet|spiderpool|orbweaver)[./]|^[^/]*(multus-cni|cni[.]cncf)[.]io"
"""What a name that is meant for us, or for Multus, begins with, however it is misspelt. RE2 and Python read it alike."""
STATUS_SUFFIX = "-status"
"""Multus writes such names back: they ask for nothing."""

_DNS = f"{notes.PREFIX}/dns"
_INJECTION = (notes.RDMA_RESOURCE_INJECT, notes.NETWORK_RESOURCE_INJECT)
KNOWN: Mapping[str, frozenset[str]] = {
    "Pod": frozenset(
        (
            notes.IPPOOL,
            notes.IPPOOLS,
            notes.SUBNET,
            notes.SUBNETS,
            notes.IP_NUMBER,
            notes.RECLAIM,
            notes.ROUTES,
            notes.DEFAULT_ROUTE_NIC,
            _DNS,
            NETWORKS,
            DEFAULT_NETWORK,
            notes.TRACEPARENT,
            *_INJECTION,
        )
    ),
    "Namespace": frozenset((notes.DEFAULT_IPV4_IPPOOL, notes.DEFAULT_IPV6_IPPOOL, *_INJECTION)),
    "SpiderMultusConfig": frozenset(
        (
            notes.CR_NAME,
            notes.CNI_VERSION,
            notes.CONFIG_NAME,
            notes.NATIVE,
            "k8s.v1.cni.cncf.io/resourceName",
            *_INJECTION,
        )
    ),
}
"""The annotations that are read, by the kind that carries them."""
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    notes.IPPOOL: ("ipv4", "ipv6"),
    notes.IPPOOLS: ("interface", "ipv4", "ipv6", "cleangateway"),
    notes.SUBNET: ("interface", "ipv4", "ipv6"),
    notes.SUBNETS: ("interface", "ipv4", "ipv6"),
    notes.ROUTES: ("dst", "gw"),
}
_SAID_MAX = 8
"""Names that are compared with the known ones, and told: nobody reads more."""
_CLOSE, _LOOKED_AT_CHARS = 0.6, 64

_ours = re.compile(OURS, re.IGNORECASE)
_prefix = re.compile(
    r"^.*(spidernet|spiderpool|orbweaver|cncf|multus-cni)([.](io|com|org))?[./_-]*", re.IGNORECASE
)


def is_ours(key: str) -> bool:
    """Whether the name is meant for us or for Multus, read by anybody or not."""
    return _ours.match(key) is not None and not key.endswith(STATUS_SUFFIX)


def findings(kind: str, marks: Mapping[str, str]) -> list[FieldError]:
    """What of the annotations of an object of this kind has no effect, and what was probably meant. `kind` is one of `KNOWN`."""
    out: list[FieldError] = []
    for key, text in marks.items():
        if len(out) >= _SAID_MAX:
            break
        if key in KNOWN[kind]:
            out += _unread_members(key, text)
        elif is_ours(key):
            sentence = unread(kind, key)
            if sentence:
                out.append(invalid(notes.path_of(key), sentence, "Unknown"))
    return out


def misplaced(
    kind: str, template: str, marks: Mapping[str, str], of_pods: Mapping[str, str]
) -> list[FieldError]:
    """Annotations of pods that stand on what makes the pods, and not on its template at the path `template`."""
    return [
        invalid(
            notes.path_of(key),
            f"has no effect on a {kind}: it is read of Pods; write it into {template}.metadata.annotations",
            "Unknown",
        )
        for key in marks
        if key in KNOWN["Pod"] and key not in of_pods
    ][:_SAID_MAX]


@lru_cache(maxsize=1024)
def unread(kind: str, key: str) -> str:
    """Why an annotation that is not `KNOWN` of this kind has no effect; empty for one of Multus' that is near none of ours to read."""
    elsewhere = sorted(other for other, keys in KNOWN.items() if key in keys)
    if elsewhere:
        return f"has no effect on a {kind}: it is read of a {' or a '.join(elsewhere)}"
    known = sorted(KNOWN[kind])
    near = _nearest(key, known)
    if near:
        return f"is no annotation that is read of a {kind}, it has no effect; did you mean {near}?"
    if "spidernet" not in key.lower() and "orbweaver" not in key.lower():
        return ""
    ours = ", ".join(one for one in known if "spidernet" in one)
    return f"is no annotation that is read of a {kind}, it has no effect; those that are: {ours}"


def _nearest(key: str, known: Iterable[str]) -> str:
    """By the part behind the prefix: prefixes are long, and make all look alike."""
    names = {_tail(one): one for one in known}
    found = difflib.get_close_matches(_tail(key)[:_LOOKED_AT_CHARS], names, n=1, cutoff=_CLOSE)
    return names[found[0]] if found else ""


def _tail(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    return (name if slash else _prefix.sub("", prefix or name)).lower().replace("_", "-")


@lru_cache(maxsize=notes.CACHE)
def _unread_members(key: str, text: str) -> tuple[FieldError, ...]:
    """Members of the JSON that nobody reads; text that is none is refused elsewhere."""
    members = _MEMBERS.get(key)
    if members is None or len(text) > TEXT_MAX_BYTES:
        return ()
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ()
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    out: list[FieldError] = []
    for i, item in enumerate(items):
        names = cast("dict[str, object]", item) if isinstance(item, dict) else {}
        for name in names:
            if name.lower() in members or len(out) >= _SAID_MAX:
                continue
            where = f"{entry('', i)}: " if isinstance(value, list) else ""
            near = difflib.get_close_matches(name.lower()[:_LOOKED_AT_CHARS], members, n=1, cutoff=_CLOSE)
            hint = f"; did you mean {near[0]}?" if near else f"; those that are: {', '.join(members)}"
            sentence = f"{where}member {name[:_LOOKED_AT_CHARS]!r} is not read, it has no effect{hint}"
            out.append(invalid(notes.path_of(key), sentence, "Unknown"))
    return tuple(out)
