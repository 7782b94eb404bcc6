"""What a runtime reads on stdout: the result of an ADD and the error object, in each version that is asked for.

Owns the forms (CNI spec 1.1, 1.0.0, 0.4.0 "Result", "Error"). Pure. Must not know how the result came about.
"""

from __future__ import annotations

from typing import Any

import msgspec

from services.agent.config import VERSIONS
from shared.errors import OrbweaverError

_WITH_FAMILY = ("0.3.0", "0.3.1", "0.4.0")


class ResultInterface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    mac: str
    sandbox: str
    mtu_bytes: int = 0


class ResultAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`address` with its prefix length. The gateway is told even where no route goes by it."""

    address: str
    gateway: str = ""


class ResultRoute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    dst: str
    gw: str = ""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of no version. Without `interface` it is an IPAM plugin's."""

    interface: ResultInterface | None = None
    addresses: tuple[ResultAddress, ...] = ()
    routes: tuple[ResultRoute, ...] = ()


def render(result: Result, version: str) -> bytes:
    """The result as JSON of `version`."""
    out: dict[str, Any] = {"cniVersion": version}
    interface = result.interface
    if interface is not None:
        shown: dict[str, Any] = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
        if version == "1.1.0" and interface.mtu_bytes:
            shown["mtu"] = interface.mtu_bytes
        out["interfaces"] = [shown]
    out["ips"] = [
        _address(address, version, has_interface=interface is not None) for address in result.addresses
    ]
    out["routes"] = [{"dst": r.dst, **({"gw": r.gw} if r.gw else {})} for r in result.routes]
    out["dns"] = {}
    return msgspec.json.encode(out)


def _address(entry: ResultAddress, version: str, *, has_interface: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if version in _WITH_FAMILY:
        out["version"] = "6" if ":" in entry.address else "4"
    if has_interface:
        out["interface"] = 0
    out["address"] = entry.address
    if entry.gateway:
        out["gateway"] = entry.gateway
    return out


def render_error(error: OrbweaverError, version: str, *, trace_id: str = "") -> bytes:
    """The error object; `trace_id` goes into the hint."""
    hint = error.kind.hint + (f" (trace {trace_id})" if trace_id else "")
    return msgspec.json.encode(
        {"cniVersion": version, "code": error.kind.code, "msg": error.message, "details": hint}
    )


def render_versions(version: str) -> bytes:
    """The answer to VERSION."""
    return msgspec.json.encode({"cniVersion": version, "supportedVersions": list(VERSIONS)})
