"""Which keys a native configuration may have, and the nearest known one to a key that it may not.

Owns the names that are not ours: the CNI specification's, and those of a SpiderMultusConfig's spec that stand there without
effect. Pure. Must not know what a key's value means.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import cast

_CNI_KEYS = (
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "runtimeConfig",
    "prevResult",
    "ipMasq",
    "dns",
    "capabilities",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
)
"""CNI spec 1.1, "Network configuration format" and "Deriving execution configuration from plugin configuration"."""
_CNI_PREFIX = "cni.dev/"
_IDLE_KEYS = (
    "ipvlan",
    "vlan",
    "sriov",
    "ibsriov",
    "ipoib",
    "ovs",
    "coordinator",
    "enableCoordinator",
    "ipam",
)
"""What the blocks are about is refused by `cniType`; `ipam` is null here."""


def unknown_key(
    whole: Mapping[str, object], ours: tuple[str, ...], blocks: Mapping[str, tuple[str, ...]]
) -> tuple[str, str] | None:
    """The path of the first key that is neither in `ours` nor others', and what is wrong with it. `blocks` are the keys of
    objects by path (`macvlan.ippools`); what is no object there is not looked into."""
    found = _first(whole, "", (*ours, *_CNI_KEYS, *_IDLE_KEYS))
    for path, known in blocks.items():
        found = found or _first(_at(whole, path), f"{path}.", known)
    return found


def _at(whole: Mapping[str, object], path: str) -> Mapping[str, object]:
    for key in path.split("."):
        part = whole.get(key)
        whole = cast("dict[str, object]", part) if isinstance(part, dict) else {}
    return whole


def _first(part: Mapping[str, object], prefix: str, known: tuple[str, ...]) -> tuple[str, str] | None:
    for key in part:
        if key not in known and not key.startswith(_CNI_PREFIX):
            near = difflib.get_close_matches(key[:64], known, 1)
            way_out = f"is it {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            return f"{prefix}{key[:64]}", f"is not a key of the native form; {way_out}"
    return None
