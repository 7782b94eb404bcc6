"""Allocation: agent → allocator on `orb.ipam.allocate.<node>`, and the release on `orb.release.<node>`.

Owns what is asked and what is answered. Must not know how it is decided.
"""

from __future__ import annotations

import msgspec

from shared.contracts.codec import Codec


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the lease log that somebody has seen: incarnation, stream sequence, digest of that record (hex)."""

    incarnation: str = ""
    sequence: int = 0
    digest: str = ""


class InterfaceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of the pod. `network` names a SpiderMultusConfig (`ns/name`, as pods name it) or is empty; `ipv4`, `ipv6` are
    the CNI configuration's pools (names or wildcards), `clean_gateway` its wish for no default route."""

    ifname: str
    network: str = ""
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    clean_gateway: bool = False


class Allocate(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.allocate.1"):
    """All interfaces of one pod that this attach needs. `pod_namespace` is empty for a container without Kubernetes, whose
    identity is then the container ID on its node. `ttl_ms` is what is left of the caller's deadline when it sent this.

    With `further_networks` the attach also needs an interface for every network that the pod's annotations name, which its
    node does not know; and the first of `interfaces` is of the pod's default network, if they name one."""

    attempt: str
    node: str
    container_id: str
    ifname: str
    interfaces: tuple[InterfaceRequest, ...]
    ttl_ms: int
    pod_namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    seen: Mark = Mark()
    further_networks: bool = False


class Route(msgspec.Struct, frozen=True, kw_only=True):
    dst: str
    gw: str


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """One address for one interface. `address` has the pool's prefix length. `gateway` is empty if the pool has none."""

    ifname: str
    family: int
    address: str
    pool: str
    generation: int
    gateway: str = ""
    clean_gateway: bool = False
    routes: tuple[Route, ...] = ()


class NetworkInterface(msgspec.Struct, frozen=True, kw_only=True):
    """`network` is `ns/name` as pods name it; empty where the caller's configuration describes the link."""

    ifname: str
    network: str = ""


class Allocated(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.allocated.1"):
    """The pod's addresses on every interface it holds, sent after the record at `mark` was acknowledged.

    `networks` holds, by `ns/name`, the spec (JSON) of each SpiderMultusConfig that the request named. To a request for further
    networks `interfaces` are all that the attach is about, the caller's first.
    """

    attempt: str
    pod_uid: str
    grants: tuple[Grant, ...]
    mark: Mark
    term: int
    networks: dict[str, str] = {}
    default_route_nic: str = ""
    interfaces: tuple[NetworkInterface, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="ipam.refused.1"):
    """`error` is a name of shared.errors.ERRORS; nothing was allocated."""

    attempt: str
    error: str
    message: str


AllocateReply = Allocated | Refused


class ReleasedInterface(msgspec.Struct, frozen=True, kw_only=True):
    ifname: str
    generation: int


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release.attachment.1"):
    """A DEL of one attachment. `generation` is the lease generation it judged; 0 where no reply to `attempt` ever came: then it is
    about every interface that the attempt was given. `others` are interfaces that were attached together with it.

    `cooldown_s` is how long the address must rest: 0 where we removed the link ourselves.
    """

    node: str
    container_id: str
    ifname: str
    attempt: str
    generation: int
    pod_uid: str = ""
    cooldown_s: float = 0.0
    reason: str = "DEL"
    others: tuple[ReleasedInterface, ...] = ()


ALLOCATE: Codec[Allocate] = Codec(Allocate)
ALLOCATE_REPLY: Codec[AllocateReply] = Codec(AllocateReply)
RELEASE: Codec[Release] = Codec(Release)
