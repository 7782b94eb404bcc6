"""The annotations `k8s.v1.cni.cncf.io/networks` and `v1.multus-cni.io/default-network`: which networks a pod asks for.

Owns both forms, the comma list and JSON (Network Plumbing WG specification 1.3, section 4.1.2), as Multus reads them. Must not
know which network definitions exist.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from shared.manifests.annotations import CACHE, interface_error, path_of
from shared.manifests.document import LABEL, SUBDOMAIN
from shared.manifests.lenient import Reader
from shared.manifests.problem import Invalid

NETWORKS = "k8s.v1.cni.cncf.io/networks"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
_IFNAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class NetworkRef(msgspec.Struct, frozen=True, kw_only=True):
    """One network asked for; `interface` is empty where its position names it (`net1` is the first). `ips` carry prefix lengths."""

    namespace: str
    name: str
    interface: str = ""
    ips: tuple[str, ...] = ()
    mac: str = ""


def interface_of(refs: tuple[NetworkRef, ...], position: int) -> str:
    """The interface of the network at `position`, counted from 0, as Multus names it; also beyond the last of `refs`."""
    named = refs[position].interface if position < len(refs) else ""
    return named or f"net{position + 1}"


@lru_cache(maxsize=CACHE)
def networks(text: str, namespace: str, annotation: str = NETWORKS) -> tuple[NetworkRef, ...] | Invalid:
    """All networks in order; a name without namespace means `namespace`. Text with `[`, `{` or `"` is JSON. Empty is none."""
    if not text.strip():
        return ()
    reader = Reader(path_of(annotation))
    if any(mark in text for mark in '[{"'):
        refs = _from_json(reader, text, namespace)
    else:
        refs = [_from_word(reader, word.strip(), namespace) for word in text.split(",")]
    seen: set[str] = set()
    for ref in refs:
        if ref.interface and ref.interface in seen:
            reader.wrong(f"duplicate interface {ref.interface}")
        seen.add(ref.interface)
    return Invalid(errors=tuple(reader.errors)) if reader.errors else tuple(refs)


def default_network(text: str, namespace: str) -> NetworkRef | Invalid | None:
    """The network of eth0; None where the annotation is empty. `namespace` is where a bare name is looked up."""
    refs = networks(text, namespace, DEFAULT_NETWORK)
    if isinstance(refs, Invalid):
        return refs
    if len(refs) > 1:
        reader = Reader(path_of(DEFAULT_NETWORK))
        reader.wrong(f"more than one default network is named: {len(refs)}")
        return Invalid(errors=tuple(reader.errors))
    return refs[0] if refs else None


def _from_word(reader: Reader, word: str, namespace: str) -> NetworkRef:
    """`[ns/]name[@ifname]`."""
    path, at, interface = word.partition("@")
    before, slash, name = path.rpartition("/")
    if word.count("@") > 1 or path.count("/") > 1:
        reader.wrong(f"{word[:80]!r} is not [namespace/]name[@interface]")
    for part, what in ((before if slash else namespace, "namespace"), (name, "network name")):
        if (part is not namespace or slash) and not LABEL.fullmatch(part):
            reader.wrong(f"{part[:80]!r} in {word[:80]!r} is not a DNS-1123 label, as a {what} must be")
    if at and (interface_error(interface) or not _IFNAME.fullmatch(interface)):
        reader.wrong(interface_error(interface) or f"{interface!r} cannot be the name of an interface")
    return NetworkRef(namespace=before if slash else namespace, name=name, interface=interface)


def _from_json(reader: Reader, text: str, namespace: str) -> list[NetworkRef]:
    refs: list[NetworkRef] = []
    for path, members in reader.objects(reader.json(text)):
        ref = NetworkRef(
            namespace=reader.text(members, "namespace", path) or namespace,
            name=reader.text(members, "name", path),
            interface=reader.text(members, "interface", path),
            ips=reader.texts(members.get("ips"), f"{path}.ips"),
            mac=reader.text(members, "mac", path),
        )
        if not ref.name:
            reader.wrong("`name` must be given", path)
        elif len(ref.name) > 253 or not SUBDOMAIN.fullmatch(ref.name):
            reader.wrong(f"{ref.name[:80]!r} cannot be the name of a network", path)
        if ref.namespace != namespace and not LABEL.fullmatch(ref.namespace):
            reader.wrong(f"{ref.namespace[:80]!r} cannot be the name of a namespace", path)
        if ref.interface:
            sentence = interface_error(ref.interface)
            if sentence:
                reader.wrong(sentence, path)
        refs.append(ref)
    return refs
