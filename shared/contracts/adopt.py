"""Adoption: what another IPAM gave in this cluster becomes leases before we give or mirror anything; controller → leading
allocator on `orb.ipam.adopt`.

Owns what is asked and answered. Must not know where the records were read, nor which of two wins.

The controller publishes pools, pods, StatefulSets and Nodes as facts, but not its `synced` mark; asks whether adoption is open;
sends what it found in parts of any order and number, each as often as it likes; ends it; and only then publishes `synced`.
Adoption is open until it was ended or an address was given, whichever is first, and never again in this log: what we mirror
ourselves is not read back. While the index of a lost log is rebuilt, a controller that begins is heard once more: what it tells is then
a witness behind the nodes' journals.
"""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec
from shared.contracts.ipam import Mark

ADOPT_TIMEOUT_S = 30.0
RECORDS_PER_PART_MAX = 1000
"""A part becomes one record of the lease log, whose size is limited."""


class AdoptedAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One address that a pod has. `address` may have a prefix length. Known from the status of a pool, from a SpiderEndpoint (then
    `ifname` and `node` are), or from both: the two may come apart, in any order, as long as those of endpoints come first."""

    address: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    pool: str = ""
    node: str = ""
    ifname: str = ""
    clean_gateway: bool = False


class AskAdoption(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.adopt.ask.1"):
    """Is there anything to adopt?"""


class AdoptRecords(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.adopt.records.1"):
    """At most `RECORDS_PER_PART_MAX`. Decided when the allocator has folded FACTS up to `facts_at_least`."""

    records: tuple[AdoptedAddress, ...]
    facts_at_least: int = 0


class EndAdoption(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.adopt.end.1"):
    """All that there was is told, be it nothing."""


class NotAdopted(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` names the object, what is wrong, and what ends it."""

    address: str
    pod: str
    reason: str


class AdoptionView(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.adoption.1"):
    """Sent after the record at `mark` was acknowledged. `adopted` counts addresses that are leases of the pod named, whether by this
    request or before; a request to what is not `open` has changed nothing."""

    open: bool
    adopted: int = 0
    refused: tuple[NotAdopted, ...] = ()
    mark: Mark = Mark()


Adoption = AskAdoption | AdoptRecords | EndAdoption

ADOPTION: Codec[Adoption] = Codec(Adoption)
ADOPTION_VIEW: Codec[AdoptionView] = Codec(AdoptionView)
