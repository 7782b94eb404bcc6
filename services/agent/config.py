"""The network configuration on stdin: bytes in, one of four forms out, or an error that names the key.

Owns what each form may say and what of it this version serves. Pure. Must not know the call around it.
Forms: native (a link of ours, written out or by the name of a SpiderMultusConfig), IPAM (we serve another main plugin),
and the two chained plugins of which only their idle form is served. A key of the native form that is neither ours nor the
CNI specification's is refused: it is a typing error, or a wish that nobody would honour. In the other forms it is the main
plugin's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from services.agent.config_key import unknown_key
from shared import limits
from shared.errors import OrbweaverError

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST_VERSION = VERSIONS[-1]
CNI_TYPES = ("macvlan", "ipvlan", "vlan", "sriov", "ib-sriov", "ipoib", "ovs", "custom")
"""`cniType` of a SpiderMultusConfig."""
OUR_TYPE = "orbweaver"
_IPAM_TYPES = ("spiderpool", OUR_TYPE)
_IDLE_MODES = ("disable", "disabled")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_NETWORK = re.compile(r"[a-z0-9]([a-z0-9.\-]*[a-z0-9])?/[a-z0-9]([a-z0-9.\-]*[a-z0-9])?")
_MULTI_NETWORK = "native"
_VLAN_MAX = 4094
_MTU_MAX_BYTES = 2**31 - 1
_CHECK_SINCE = VERSIONS.index("0.4.0")
_POSITION = re.compile(r"byte (\d+)")

S = TypeVar("S")


class Macvlan(msgspec.Struct, frozen=True, kw_only=True):
    """`mtu_bytes` 0 is the parent's."""

    parent: str
    mtu_bytes: int = 0


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """A link of ours: either `link`, or `reference` (`ns/name` of a SpiderMultusConfig), whose definition comes with the addresses.
    With `further_networks` the pod's annotation of networks is ours to honour too, in the same ADD."""

    version: str
    network: str
    link: Macvlan | None = None
    reference: str = ""
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    further_networks: bool = False


class Ipam(msgspec.Struct, frozen=True, kw_only=True):
    """We give addresses for a link that another plugin makes."""

    version: str
    network: str
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    clean_gateway: bool = False


class PassThrough(msgspec.Struct, frozen=True, kw_only=True):
    """A chained plugin with nothing to do: `result` is what it prints (JSON)."""

    version: str
    network: str
    result: bytes


Config = Native | Ipam | PassThrough


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What every verb but ADD needs. `valid` is None where the key of valid attachments is absent."""

    version: str
    network: str
    valid: frozenset[tuple[str, str]] | None = None


class _Pools(msgspec.Struct, kw_only=True):
    ipv4: str | list[str] | None = None
    ipv6: str | list[str] | None = None


class _Block(msgspec.Struct, kw_only=True):
    """The block `macvlan` of a SpiderMultusConfig's spec; native configurations may write its keys at the top."""

    master: str | list[str] | None = None
    mtu: int | None = None
    vlan_id: int | None = msgspec.field(default=None, name="vlanID")
    bond: dict[str, Any] | None = None
    ippools: _Pools | None = None


class _Spec(_Block, kw_only=True):
    cni_type: str | None = msgspec.field(default=None, name="cniType")
    macvlan: _Block | None = None
    disable_ipam: bool | None = msgspec.field(default=None, name="disableIPAM")
    network: str | None = None
    multi_network: str | None = msgspec.field(default=None, name="multiNetwork")


_BLOCKS = {
    "macvlan": (*_Block.__struct_encode_fields__, "rdmaResourceName"),
    "ippools": (*_Pools.__struct_encode_fields__, "matchMasterSubnet"),
    "macvlan.ippools": (*_Pools.__struct_encode_fields__, "matchMasterSubnet"),
}
"""The keys of a native configuration's objects by their paths, two without effect included."""


class _Wishes(msgspec.Struct, kw_only=True):
    """What a runtime passes on from its user (CNI conventions, "Dynamic Plugin specific fields")."""

    ips: list[str] | None = None
    mac: str | None = None


class _Dynamic(msgspec.Struct, kw_only=True):
    runtime: _Wishes | None = msgspec.field(default=None, name="runtimeConfig")


class _IpamSection(msgspec.Struct, kw_only=True):
    type: str | None = None
    ipv4: str | list[str] | None = msgspec.field(default=None, name="default_ipv4_ippool")
    ipv6: str | list[str] | None = msgspec.field(default=None, name="default_ipv6_ippool")
    clean_gateway: bool | None = None
    match_master_subnet: bool | None = None


class _Head(msgspec.Struct, kw_only=True):
    version: str | None = msgspec.field(default=None, name="cniVersion")
    name: str | None = None
    type: str | None = None


class _Ipamed(msgspec.Struct, kw_only=True):
    ipam: _IpamSection | None = None


class _Chained(msgspec.Struct, kw_only=True):
    mode: str | None = None
    interfaces: list[str] | None = None
    vlan_id: int | None = msgspec.field(default=None, name="vlanID")
    bond: dict[str, Any] | None = None
    previous: dict[str, Any] | None = msgspec.field(default=None, name="prevResult")


class _Attachment(msgspec.Struct, kw_only=True):
    container_id: str = msgspec.field(name="containerID")
    ifname: str


class _Collected(msgspec.Struct, kw_only=True):
    valid: list[_Attachment] | None = msgspec.field(default=None, name="cni.dev/valid-attachments")
    attachments: list[_Attachment] | None = msgspec.field(default=None, name="cni.dev/attachments")


def parse(body: bytes, plugin: str) -> Config:
    """The configuration of an ADD; `plugin` is what we were executed as. Raises OrbweaverError:
    `content_undecodable`, `config_invalid`, `version_unsupported`, `not_in_this_version`.
    """
    head, version, network = _head(body)
    kind = head.type or ""
    if "coordinator" in (plugin, kind):
        return _coordinator(_decode(body, _Chained), version, network)
    if "ifacer" in (plugin, kind):
        return _ifacer(_decode(body, _Chained), version, network)
    ipam = _decode(body, _Ipamed).ipam if kind != OUR_TYPE else None
    wishes = _decode(body, _Dynamic).runtime or _Wishes()
    if wishes.ips:
        raise _unserved("runtimeConfig.ips (an address by wish)")
    if ipam is not None and (plugin in _IPAM_TYPES and ipam.type in _IPAM_TYPES):
        return _ipam(ipam, version, network)
    if kind != OUR_TYPE and plugin == "spiderpool":
        raise _invalid(
            "ipam.type", f"must be one of {', '.join(_IPAM_TYPES)} where this plugin is called as {plugin!r}"
        )
    if wishes.mac:
        raise _unserved("runtimeConfig.mac (a MAC by wish)")
    _demand_known(_decode(body, dict[str, Any]))
    return _native(_decode(body, _Spec), version, network)


def envelope(body: bytes) -> Envelope:
    """What CHECK, STATUS and GC need of a configuration of any form. Raises as `parse`."""
    _, version, network = _head(body)
    collected = _decode(body, _Collected)
    listed = collected.attachments if collected.valid is None else collected.valid
    valid = None if listed is None else frozenset((a.container_id, a.ifname) for a in listed)
    return Envelope(version=version, network=network, valid=valid)


def demand_check(version: str) -> None:
    """CHECK came with CNI 0.4.0. Older runtimes never call it, libcni refuses to, and the reference's skel answers error 1 to
    whoever does: a "yes" would be a promise that 0.3.x does not know. (GC and STATUS, of 1.1.0, are answered in any version:
    tools ask them with the configuration at hand, whatever its version.) Raises OrbweaverError."""
    if VERSIONS.index(version) < _CHECK_SINCE:
        raise OrbweaverError("version_unsupported", f"cniVersion {version} has no CHECK; it came with 0.4.0")


def version_of(body: bytes) -> str:
    """The cniVersion that an error or a DEL of this configuration is answered in; never raises."""
    try:
        version = msgspec.json.decode(body, type=_Head).version
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "1.0.0"
    return version if version in VERSIONS else "1.0.0"


def link_of_network(reference: str, spec_json: str) -> Macvlan:
    """The link that a SpiderMultusConfig describes. Raises OrbweaverError that names it."""
    try:
        return _link(_decode(spec_json.encode(), _Spec))
    except OrbweaverError as error:
        raise OrbweaverError(error.kind.name, f"SpiderMultusConfig {reference}: {error.message}") from None


def _head(body: bytes) -> tuple[_Head, str, str]:
    """Version first: a caller that speaks another version is to hear that, whatever else is wrong."""
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise OrbweaverError(
            "content_undecodable", "the network configuration on stdin is JSON, but not an object"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _undecodable(body, error) from None
    head = _decode(body, _Head)
    if head.version not in VERSIONS:
        found = "is not given" if head.version is None else f"is {head.version[:32]!r}"
        raise OrbweaverError("version_unsupported", f"cniVersion {found}; known are {', '.join(VERSIONS)}")
    if not head.name:
        raise _invalid("name", "is not given; every network has one")
    if not _NAME.fullmatch(head.name):
        raise _invalid("name", f"is {head.name[:64]!r}; letters, digits, '_', '.', '-' are allowed")
    return head, head.version, head.name


def _decode(body: bytes, form: type[S]) -> S:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$.")
        key = path.rstrip("`")
        raise _invalid(key or "the configuration", f"{sentence[:1].lower()}{sentence[1:]}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _undecodable(body, error) from None


def _undecodable(body: bytes, error: Exception) -> OrbweaverError:
    if not body.strip():
        return OrbweaverError("content_undecodable", "the network configuration on stdin is empty")
    sentence = str(error) or type(error).__name__
    found = _POSITION.search(sentence)
    if found is not None:
        before = body[: int(found[1])]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        sentence += f", line {line} column {column}"
    return OrbweaverError(
        "content_undecodable", f"the network configuration on stdin cannot be read: {sentence}"
    )


def _invalid(key: str, problem: str) -> OrbweaverError:
    return OrbweaverError("config_invalid", f"network configuration: {key}: {problem}")


def _unserved(what: str) -> OrbweaverError:
    return OrbweaverError(
        "not_in_this_version", f"network configuration: {what} is not served in this version"
    )


def _demand_known(whole: Mapping[str, object]) -> None:
    """Raises OrbweaverError that names the first key of a native configuration that nobody honours."""
    if whole.get("ipam") is not None:
        raise _invalid(
            "ipam",
            "has no place in the native form, which takes its addresses from our pools; "
            "take it out and name the pools in `ippools`",
        )
    found = unknown_key(whole, _Spec.__struct_encode_fields__, _BLOCKS)
    if found is not None:
        raise _invalid(*found)


def _native(spec: _Spec, version: str, network: str) -> Native:
    pools = (spec.macvlan.ippools if spec.macvlan is not None else None) or spec.ippools or _Pools()
    reference = spec.network or ""
    if reference and not _NETWORK.fullmatch(reference):
        raise _invalid("network", f"is {reference[:128]!r}; it names a SpiderMultusConfig as NAMESPACE/NAME")
    if spec.multi_network not in (None, "", _MULTI_NETWORK):
        raise _invalid(
            "multiNetwork", f"is {spec.multi_network[:32]!r}; it is {_MULTI_NETWORK!r} or not given"
        )
    return Native(
        version=version,
        network=network,
        link=None if reference else _link(spec),
        reference=reference,
        ipv4=_listed(pools.ipv4),
        ipv6=_listed(pools.ipv6),
        further_networks=spec.multi_network == _MULTI_NETWORK,
    )


def _link(spec: _Spec) -> Macvlan:
    if spec.cni_type not in CNI_TYPES:
        found = "is not given" if spec.cni_type is None else f"is {spec.cni_type[:32]!r}"
        raise _invalid(
            "cniType",
            f"{found}; it is one of {', '.join(CNI_TYPES)}, or `network` names a SpiderMultusConfig",
        )
    if spec.cni_type not in limits.CNI_TYPES_SERVED:
        raise _unserved(f"cniType {spec.cni_type}")
    if spec.disable_ipam:
        raise _unserved("disableIPAM")
    block = spec.macvlan or spec
    masters = [*_listed(block.master)]
    if not masters or not all(masters):
        raise _invalid("master", "is not given; it names the link of the node that pods are attached to")
    for name in masters:
        if len(name.encode()) > limits.IFNAME_MAX_BYTES or "/" in name or "\0" in name:
            raise _invalid("master", f"{name[:32]!r} is no name that a link can have")
    if block.bond or len(masters) > 1:
        if not block.bond:
            raise _invalid("master", f"has {len(masters)} links; several need `bond`")
        raise _unserved("bond")
    mtu_bytes, vlan_id = block.mtu or 0, block.vlan_id or 0
    if mtu_bytes and not limits.MTU_MIN_BYTES <= mtu_bytes <= _MTU_MAX_BYTES:
        raise _invalid(
            "mtu", f"is {mtu_bytes}; the least is {limits.MTU_MIN_BYTES}, and 0 means the parent's"
        )
    if not 0 <= vlan_id <= _VLAN_MAX:
        raise _invalid("vlanID", f"is {vlan_id}; it goes from 0 (none) to {_VLAN_MAX}")
    if vlan_id:
        raise _unserved(f"vlanID {vlan_id}")
    return Macvlan(parent=masters[0], mtu_bytes=mtu_bytes)


def _ipam(section: _IpamSection, version: str, network: str) -> Ipam:
    if section.match_master_subnet:
        raise _unserved("ipam.match_master_subnet")
    return Ipam(
        version=version,
        network=network,
        ipv4=_listed(section.ipv4),
        ipv6=_listed(section.ipv6),
        clean_gateway=bool(section.clean_gateway),
    )


def _coordinator(chained: _Chained, version: str, network: str) -> PassThrough:
    if chained.mode not in _IDLE_MODES:
        raise _unserved(f"coordinator in mode {chained.mode or 'auto'}")
    if chained.previous is None:
        raise _invalid("prevResult", "is not given; coordinator is chained behind a main plugin")
    return PassThrough(version=version, network=network, result=msgspec.json.encode(chained.previous))


def _ifacer(chained: _Chained, version: str, network: str) -> PassThrough:
    if not chained.interfaces:
        raise _invalid("interfaces", "is not given; ifacer needs one or more")
    if chained.vlan_id:
        raise _unserved(f"ifacer with vlanID {chained.vlan_id}")
    if len(chained.interfaces) > 1 and chained.bond:
        raise _unserved("ifacer with bond")
    return PassThrough(version=version, network=network, result=msgspec.json.encode({"cniVersion": version}))


def _listed(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
