"""Nodes that are silent after a loss: what the objects of Kubernetes tell of them, and whether that is all.

Owns that judgement, and what is kept from others for such a node until it reports. Must not know who asks whom. Pure.

A SpiderEndpoint is written after the lease that it shows, so it tells the whole only up to a record that its writer names; and it shows
pods alone, one of a name. A node that may have more counts as `unmirrored` in the shared mark, and is waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from services.allocator.rebuild import MIRRORED_REASON, QUARANTINE_ITEMS_PER_EVENT
from services.allocator.state import State
from shared.contracts.adopt import AdoptedAddress
from shared.contracts.ipam import Mark
from shared.contracts.lease import AddressesQuarantined, QuarantinedItem
from shared.contracts.mark import LogMark, Mirrored
from shared.net.ranges import format_address, parse_address


def told_by_endpoints(
    silent: Iterable[str],
    through: Mirrored | None,
    marks: Sequence[LogMark],
    shared: LogMark | None,
    seen: Iterable[Mark],
) -> frozenset[str]:
    """Those of the silent nodes of which the endpoints tell all that any mark promises. `marks` are those beyond what can be read, the
    furthest first; `seen` those of nodes."""
    if through is None or shared is None or not marks or through.incarnation != shared.incarnation:
        return frozenset()
    if any(mark.epoch == marks[0].epoch and mark.incarnation != through.incarnation for mark in marks):
        return frozenset()
    known = (mark.sequence for mark in (*marks, *seen) if mark.incarnation == through.incarnation)
    if max(known) > through.sequence:
        return frozenset()
    return frozenset(silent) - frozenset(shared.unmirrored)


def kept_for_silent(
    state: State, silent: frozenset[str], addresses: Iterable[AdoptedAddress]
) -> Iterator[AddressesQuarantined]:
    """Nobody else is given what an endpoint shows on such a node, until it reports or is no more. What is none is passed over."""
    items: dict[tuple[int, int], QuarantinedItem] = {}
    for one in addresses:
        try:
            key = parse_address(one.address.partition("/")[0])
        except ValueError:
            continue
        if one.node in silent and state.holder(*key) is None and key not in state.quarantine:
            items[key] = QuarantinedItem(
                address=format_address(key[1], key[0]), pool=one.pool, node=one.node, reason=MIRRORED_REASON
            )
    kept = list(items.values())
    for begin in range(0, len(kept), QUARANTINE_ITEMS_PER_EVENT):
        yield AddressesQuarantined(items=tuple(kept[begin : begin + QUARANTINE_ITEMS_PER_EVENT]))
