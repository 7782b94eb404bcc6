"""Which pools an interface may draw from, in which order, and why the others not.

Owns the rules that users know: where candidates come from, wildcards, filters, order (spec of `ipam.spidernet.io`).
Must not know what is free: that a pool is exhausted is decided in `decide`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shared import limits
from shared.contracts.ipam import InterfaceRequest
from shared.manifests import annotations as notes
from shared.manifests import selector, wildcard
from shared.manifests.networks import DEFAULT_NETWORK, NETWORKS, default_network, interface_of, networks
from shared.manifests.problem import Invalid
from shared.net.ranges import IntervalSet
from shared.selection.cluster import Cluster, PodFact, PoolFact

_RANGES_SHOWN_MAX = 4
FAMILIES: tuple[Literal[4], Literal[6]] = (4, 6)


class Refusal(msgspec.Struct, frozen=True):
    """A domain "no": `error` names a row of shared.errors."""

    error: str
    message: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why one pool was kept (`reason` empty) or dropped for one interface and family."""

    ifname: str
    family: int
    pool: str
    reason: str


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """One interface that needs addresses: for each family the pools to try, best first. An absent family is not wanted.
    `network` is empty where none was asked for by name."""

    ifname: str
    network: str
    clean_gateway: bool
    pools: dict[int, tuple[PoolFact, ...]]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules yield. `source` names the rule that applied."""

    source: str
    wants: tuple[Want, ...]
    verdicts: tuple[Verdict, ...]
    refusal: Refusal | None = None


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """The names that a rule gives one interface, before wildcards; None is a family that the rule does not name."""

    ifname: str
    names: dict[int, tuple[str, ...]]
    clean_gateway: bool


def select(
    facts: Cluster, pod: PodFact | None, node: str | None, requests: tuple[InterfaceRequest, ...]
) -> Selection:
    """Applies the first rule that yields anything, alone. `pod` is None for a container that no pod stands behind. `node` is None
    while nobody knows where the pod will run: a pool of some nodes may serve it then."""
    listed = _listed(facts, pod, requests)
    if isinstance(listed, Refusal):
        return Selection(source="", wants=(), verdicts=(), refusal=listed)
    source, items = listed
    wants: list[Want] = []
    verdicts: list[Verdict] = []
    networks_of = {request.ifname: request.network for request in requests}
    for item in items:
        pools: dict[int, tuple[PoolFact, ...]] = {}
        for family in FAMILIES:
            if not (facts.settings.enable_ipv4 if family == 4 else facts.settings.enable_ipv6):
                continue
            found = _expand(facts, item.names.get(family, ()), family)
            if isinstance(found, Refusal):
                return Selection(source=source, wants=(), verdicts=tuple(verdicts), refusal=found)
            if not found:
                continue
            kept = _filter(
                facts, pod, node, item.ifname, networks_of.get(item.ifname, ""), family, found, verdicts
            )
            if isinstance(kept, Refusal):
                return Selection(source=source, wants=(), verdicts=tuple(verdicts), refusal=kept)
            pools[family] = kept
        if not pools:
            message = f"no Interface {item.ifname} IP allocation found: {source} yields no pool of an enabled family"
            return Selection(
                source=source, wants=(), verdicts=tuple(verdicts), refusal=Refusal("no_pool", message)
            )
        wants.append(
            Want(
                ifname=item.ifname,
                network=networks_of.get(item.ifname, ""),
                clean_gateway=item.clean_gateway,
                pools=pools,
            )
        )
    return Selection(source=source, wants=tuple(wants), verdicts=tuple(verdicts))


def candidates(
    facts: Cluster, pod: PodFact | None, requests: tuple[InterfaceRequest, ...]
) -> dict[str, frozenset[str]] | Refusal:
    """The pools that the first rule names for each interface that it is about, of both families, whether they may serve now or not."""
    listed = _listed(facts, pod, requests)
    if isinstance(listed, Refusal):
        return listed
    named: dict[str, frozenset[str]] = {}
    for item in listed[1]:
        pools: set[str] = set()
        for family in FAMILIES:
            found = _expand(facts, item.names.get(family, ()), family)
            if isinstance(found, Refusal):
                return found
            pools |= {pool.name for pool in found}
        named[item.ifname] = frozenset(pools)
    return named


def _listed(
    facts: Cluster, pod: PodFact | None, requests: tuple[InterfaceRequest, ...]
) -> tuple[str, list[_Listed]] | Refusal:
    marks = pod.annotations if pod is not None else {}
    if facts.settings.enable_spider_subnet and (notes.SUBNETS in marks or notes.SUBNET in marks):
        return _subnets_refused(facts, pod)
    if (text := marks.get(notes.IPPOOLS)) is not None:
        return _from_ippools(text, pod, requests)
    if (text := marks.get(notes.IPPOOL)) is not None:
        value = notes.ippool(text)
        if isinstance(value, Invalid):
            return Refusal("annotation_invalid", value.message)
        return f"pod annotation {notes.IPPOOL}", [
            _Listed(ifname=r.ifname, names={4: value.ipv4, 6: value.ipv6}, clean_gateway=r.clean_gateway)
            for r in requests
        ]
    namespace = facts.namespaces.get(pod.namespace) if pod is not None else None
    if namespace is not None:
        defaults = notes.namespace_defaults(namespace.metadata.annotations)
        if isinstance(defaults, Invalid):
            return Refusal("annotation_invalid", f"namespace {namespace.metadata.name}: {defaults.message}")
        if defaults.ipv4 or defaults.ipv6:
            return f"annotations of namespace {namespace.metadata.name}", [
                _Listed(
                    ifname=r.ifname, names={4: defaults.ipv4, 6: defaults.ipv6}, clean_gateway=r.clean_gateway
                )
                for r in requests
            ]
    defaults_by_family = {
        family: tuple(
            sorted(
                p.name
                for p in facts.pools.values()
                if p.spec.default and p.family == family and not p.terminating
            )
        )
        for family in FAMILIES
    }
    items: list[_Listed] = []
    sources: list[str] = []
    for r in requests:
        configured = {4: r.ipv4, 6: r.ipv6}
        named = any(configured.values())
        sources.append("CNI configuration" if named else "cluster default pools")
        if not named and not any(defaults_by_family.values()):
            return Refusal(
                "no_pool",
                f"no IPPool available for {r.ifname}, no pool selection rules of any type are specified: annotate the pod or its "
                "namespace, name pools in the CNI configuration, or set `spec.default: true` on a SpiderIPPool",
            )
        names = configured if named else defaults_by_family
        items.append(_Listed(ifname=r.ifname, names=names, clean_gateway=r.clean_gateway))
    return ", ".join(dict.fromkeys(sources)), items


def _subnets_refused(facts: Cluster, pod: PodFact | None) -> Refusal:
    used = f"'{notes.SUBNETS}' or '{notes.SUBNET}'"
    if not facts.settings.enable_auto_pool_for_application:
        return Refusal(
            "annotation_invalid", f"it's invalid to use {used} annotation when Auto-Pool feature is disabled"
        )
    if pod is not None and not pod.controlled:
        return Refusal("annotation_invalid", "SpiderSubnet feature doesn't support no-controller pod")
    return Refusal(
        "not_in_this_version", f"{used}: automatic pools are not served yet; name a pool by '{notes.IPPOOL}'"
    )


def _from_ippools(
    text: str, pod: PodFact | None, requests: tuple[InterfaceRequest, ...]
) -> tuple[str, list[_Listed]] | Refusal:
    """All listed interfaces are wanted at once, whichever of them is called."""
    value = notes.ippools(text)
    if isinstance(value, Invalid):
        return Refusal("annotation_invalid", value.message)
    ifnames = [item.interface for item in value]
    if not ifnames[0]:
        others = networks(pod.annotations.get(NETWORKS, "") if pod else "", pod.namespace if pod else "")
        if isinstance(others, Invalid):
            return Refusal("annotation_invalid", others.message)
        ifnames = ["eth0", *(interface_of(others, i) for i in range(len(value) - 1))]
    if len(ifnames) > limits.INTERFACES_PER_POD_MAX:
        message = f"{notes.path_of(notes.IPPOOLS)}: {len(ifnames)} interfaces, at most {limits.INTERFACES_PER_POD_MAX} are served"
        return Refusal("annotation_invalid", message)
    for i, ifname in enumerate(ifnames):
        if ifname in ifnames[:i]:
            message = f"{notes.path_of(notes.IPPOOLS)}: duplicate interface {ifname}, by its networks"
            return Refusal("annotation_invalid", message)
    for request in requests:
        if request.ifname not in ifnames:
            return Refusal(
                "annotation_invalid",
                f"{notes.path_of(notes.IPPOOLS)}: interface {request.ifname} must be specified; it lists {' '.join(ifnames)}",
            )
    return f"pod annotation {notes.IPPOOLS}", [
        _Listed(ifname=ifname, names={4: item.ipv4, 6: item.ipv6}, clean_gateway=item.clean_gateway)
        for ifname, item in zip(ifnames, value, strict=True)
    ]


def _expand(facts: Cluster, names: tuple[str, ...], family: int) -> list[PoolFact] | Refusal:
    """Listed order; a pattern stands for its matches by name; a pool reached twice counts once."""
    found: dict[str, PoolFact] = {}
    for name in names:
        if wildcard.is_pattern(name):
            wrong = wildcard.pattern_error(name)
            if wrong is not None:
                return Refusal("annotation_invalid", wrong)
            for pool_name in sorted(facts.pools):
                pool = facts.pools[pool_name]
                if pool.family == family and wildcard.matches(name, pool_name):
                    found.setdefault(pool_name, pool)
        elif name in facts.pools:
            found.setdefault(name, facts.pools[name])
        else:
            return Refusal("pool_unknown", pool_unknown(name))
    return list(found.values())


def _filter(
    facts: Cluster,
    pod: PodFact | None,
    node: str | None,
    ifname: str,
    network: str,
    family: int,
    pools: list[PoolFact],
    verdicts: list[Verdict],
) -> tuple[PoolFact, ...] | Refusal:
    kept: list[PoolFact] = []
    reasons: list[str] = []
    if any(pool.spec.multus_name for pool in pools) and not network:
        resolved = _network_of(facts, pod, ifname)
        if isinstance(resolved, Refusal):
            return resolved
        network = resolved
    for pool in pools:
        reason = _dropped(facts, pod, node, network, family, pool)
        verdicts.append(Verdict(ifname=ifname, family=family, pool=pool.name, reason=reason))
        if reason:
            reasons.append(f"{pool.name} {reason}")
        else:
            kept.append(pool)
    if not kept:
        names = " ".join(pool.name for pool in pools)
        message = f"no IPPool available, all IPv{family} IPPools [{names}] of {ifname} filtered out: {'; '.join(reasons)}"
        return Refusal("no_pool", message)
    kept.sort(key=_specificity)
    return tuple(kept)


def _specificity(pool: PoolFact) -> tuple[bool, ...]:
    """False sorts first: pools with the more specific affinity go before; ties keep the listed order."""
    spec = pool.spec
    return (
        spec.pod_affinity is None,
        not spec.node_name,
        spec.node_affinity is None,
        not spec.namespace_name,
        spec.namespace_affinity is None,
        not spec.multus_name,
    )


def _dropped(
    facts: Cluster, pod: PodFact | None, node: str | None, network: str, family: int, pool: PoolFact
) -> str:
    """Why the pool may not serve this pod, or empty."""
    spec = pool.spec
    if pool.terminating:
        return "is terminating"
    if spec.disable:
        return "is disabled"
    if pool.family != family:
        return other_family(pool)
    if before := facts.pool_before(pool.name):
        return stands_back(pool, facts.pools[before])
    if node is None:
        return _dropped_for_pod(facts, pod, network, pool)
    if spec.node_name:
        if node not in spec.node_name:
            return f"does not list node {node} in nodeName"
    elif spec.node_affinity is not None:
        found = facts.nodes.get(node)
        if not selector.matches(spec.node_affinity, found.metadata.labels if found else {}):
            return f"has a nodeAffinity that node {node} does not match"
    return _dropped_for_pod(facts, pod, network, pool)


def _dropped_for_pod(facts: Cluster, pod: PodFact | None, network: str, pool: PoolFact) -> str:
    spec = pool.spec
    namespace = pod.namespace if pod is not None else ""
    if spec.namespace_name:
        if namespace not in spec.namespace_name:
            return f"does not list namespace {namespace or '(none)'} in namespaceName"
    elif spec.namespace_affinity is not None:
        found = facts.namespaces.get(namespace)
        if not selector.matches(spec.namespace_affinity, found.metadata.labels if found else {}):
            return f"has a namespaceAffinity that namespace {namespace or '(none)'} does not match"
    if spec.pod_affinity is not None and not selector.matches(spec.pod_affinity, pod.labels if pod else {}):
        return "has a podAffinity that the pod does not match"
    if spec.multus_name:
        wanted = {
            name if "/" in name else f"{facts.installation_namespace}/{name}" for name in spec.multus_name
        }
        if network not in wanted:
            return f"does not list network {network or '(none)'} in multusName"
    return ""


def _network_of(facts: Cluster, pod: PodFact | None, ifname: str) -> str | Refusal:
    """The `ns/name` of the network definition behind an interface, as the pod's Multus annotations and the cluster tell."""
    marks = pod.annotations if pod is not None else {}
    if ifname == "eth0":
        found = default_network(marks.get(DEFAULT_NETWORK, ""), facts.installation_namespace)
        if isinstance(found, Invalid):
            return Refusal("annotation_invalid", found.message)
        if found is not None:
            return f"{found.namespace}/{found.name}"
        cluster = facts.cluster_network
        return cluster if "/" in cluster or not cluster else f"{facts.installation_namespace}/{cluster}"
    refs = networks(marks.get(NETWORKS, ""), pod.namespace if pod is not None else "")
    if isinstance(refs, Invalid):
        return Refusal("annotation_invalid", refs.message)
    for i, ref in enumerate(refs):
        if interface_of(refs, i) == ifname:
            return f"{ref.namespace}/{ref.name}"
    return Refusal("annotation_invalid", f"no matched multus object for NIC '{ifname}'")


def pool_unknown(name: str) -> str:
    return f"SpiderIPPool {name} is not found"


def other_family(pool: PoolFact) -> str:
    return f"is an IPv{pool.family} pool"


def stands_back(pool: PoolFact, before: PoolFact) -> str:
    """Why no address is given from a pool of two that exclude each other."""
    both = pool.total.intersect(before.total) if pool.subnet == before.subnet else IntervalSet()
    ranges = both.texts(pool.family)
    more = f" and {len(ranges) - _RANGES_SHOWN_MAX} more" if len(ranges) > _RANGES_SHOWN_MAX else ""
    what = f"in {' '.join(ranges[:_RANGES_SHOWN_MAX])}{more}" if both else f"of subnet {before.subnet}"
    return (
        f"overlaps with the older IPPool {before.name} {what}: no address is given from it until one of the two "
        "is changed or deleted"
    )


def exhausted(want: Want, family: int, pools: tuple[PoolFact, ...]) -> Refusal:
    told = ", ".join(f"{pool.name} ({pool.total.size()} in all)" for pool in pools)
    network = f" (network {want.network})" if want.network else ""
    return Refusal(
        "pool_exhausted", f"all IP addresses used out for IPv{family} of {want.ifname}{network}: {told}"
    )
