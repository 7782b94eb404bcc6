"""The cases of users' known behaviour: identity, area, what must hold, and where it is run.

Owns the list. Must not know how a case is tried. The identities are those of Spiderpool's end-to-end lists, so that its users
can look up what they rely on.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

SERVICES, CLUSTER = "services", "cluster"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`runs`: by `make conformance` (services), by `make conformance-cluster` (cluster), or both. None: `not_applicable` says why."""

    name: str
    area: str
    statement: str
    runs: frozenset[str]
    not_applicable: str = ""


def case(name: str) -> pytest.MarkDecorator:
    """Marks the test of a case. Raises KeyError for one that is not listed."""
    return pytest.mark.case(CASES[name].name)


def cases_of(run: str) -> list[Case]:
    """What a run has to try, and what nobody can."""
    return [one for one in CASES.values() if run in one.runs or not one.runs]


_S, _K, _B = frozenset({SERVICES}), frozenset({CLUSTER}), frozenset({SERVICES, CLUSTER})
_LATER = "needs automatic pools, which come later"
_PATH = "needs a part of the data path that comes later"


def _area(area: str, rows: Iterable[tuple[str, frozenset[str] | str, str]]) -> list[Case]:
    return [
        Case(name=name, area=area, statement=statement, runs=frozenset(), not_applicable=runs)
        if isinstance(runs, str)
        else Case(name=name, area=area, statement=statement, runs=runs)
        for name, runs, statement in rows
    ]


_ALL = [
    *_area(
        "annotation",
        [
            ("A00001", "pools have no VLAN any more", "two pools of different VLANs on one interface"),
            ("A00002", _S, "annotation routes: exactly that route, by that gateway, both families"),
            ("A00003", _B, "unknown pools, unknown keys or broken JSON: the pod waits, nothing is allocated"),
            ("A00004", _S, "the pod's annotation beats namespace and configuration"),
            ("A00005", _S, "ippools beats ippool"),
            ("A00006", _S, "the namespace's annotation beats the cluster's default pool"),
            ("A00007", _S, "a wildcard in the namespace's annotation: any matching pool of the family"),
            ("A00008", _B, "a pod of several containers has one address a family"),
            ("A00009", _B, "other pools in the template: new pods draw from them, the old pool ends empty"),
            ("A00010", _S, "two interfaces by ippools, with names and without, then other pools"),
            ("A00011", _S, "cleangateway false: the default route is there"),
            ("A00012", _S, "default-route-nic: the default route leaves by it"),
            ("A00013", _S, "ippools that leave out eth0: the pod does not start"),
            ("A00014", _S, "ippools that name an interface twice: the pod does not start"),
            ("A00015", _S, "wildcards in ippools: an address of a matching pool"),
            (
                "A00016",
                _S,
                "the second interface's pool is not drained by retries of one whose first pool is exhausted",
            ),
            (
                "A00017",
                _B,
                "a StatefulSet's further network changes its default pool; eth0 keeps its address",
            ),
            (
                "A00018",
                _B,
                "a StatefulSet with nameless ippools keeps both addresses, then moves to other pools",
            ),
        ],
    ),
    *_area(
        "affinity",
        [
            ("L00001", _S, "a pool whose nodeAffinity matches the pod's node serves it"),
            ("L00002", _S, "a pool whose nodeAffinity does not match: the pod does not start"),
            ("L00003", _S, "a pool whose namespaceAffinity matches the namespace's labels serves it"),
            ("L00004", _S, "a pool whose namespaceAffinity does not match: the pod does not start"),
            ("L00005", _S, "a pool whose podAffinity matches the pod's labels serves it"),
            ("L00006", _S, "a pool whose podAffinity does not match: the pod does not start"),
            ("L00007", _B, "a DaemonSet over two zones: each pod from its zone's pool"),
            ("L00008", _B, "a StatefulSet keeps each ordinal's address until its pool changes"),
            (
                "L00009",
                _S,
                "a pool for two namespaces serves both, several pools serve one, others are refused",
            ),
        ],
    ),
    *_area(
        "assignip",
        [
            ("E00001", _B, "a bare pod: one address a family, recorded, and gone with it"),
            ("E00002", _B, "a Deployment's pods: one address a family each, recorded, and gone with them"),
            (
                "E00003",
                _B,
                "a StatefulSet's pods: one address a family each, kept over a restart, and gone with it",
            ),
            ("E00004", _B, "a DaemonSet's pods: one address a family each, recorded, and gone with them"),
            ("E00005", _B, "a Job's pods: one address a family each, recorded, and gone with them"),
            ("E00006", _B, "a ReplicaSet's pods: one address a family each, recorded, and gone with them"),
            ("E00007", _B, "a pod with very long labels and annotations gets its address"),
            ("E00008", _B, "one address for two pods: the second waits, and starts once it is free"),
            ("E00009", _S, "annotations with pools of one family: the pod has that family only"),
            ("E00010", _LATER, "annotation subnet of one family"),
        ],
    ),
    *_area(
        "ippoolcr",
        [
            ("D00001", _B, "an address of another pool is refused"),
            ("D00002", _S, "routes added to a pool in use: only later pods have them"),
            ("D00003", _B, "a gateway outside the subnet, an invalid route: refused"),
            ("D00004", _K, "a pool with addresses in use stays until they are released"),
            ("D00005", _S, "disable: no new address, release works"),
            (
                "D00006",
                _K,
                "60 pools created and deleted at once: all are there, then gone; the time is told",
            ),
            ("D00007", _K, "a pool is created, read, changed and deleted; its total follows"),
            (
                "D00008",
                _S,
                "a pool inherits gateway and routes of its SpiderSubnet where it has none of its own",
            ),
            ("D00009", _S, "multusName of the interface's network: the pool serves it"),
            ("D00010", _S, "multusName of another network: the pod does not start"),
            ("D00011", _S, "nodeName lists the pod's node: the pool serves it"),
            ("D00012", _S, "nodeName lists another node: the pod does not start"),
            ("D00013", _S, "nodeName beats nodeAffinity, where it lists the node and where it does not"),
            ("D00014", _S, "namespaceName lists the pod's namespace: the pool serves it"),
            ("D00015", _S, "namespaceName lists another namespace: the pod does not start"),
            (
                "D00016",
                _S,
                "namespaceName beats namespaceAffinity, where it lists the namespace and where not",
            ),
            ("D00017", _B, "a huge IPv6 pool: the total saturates, allocation works"),
        ],
    ),
    *_area(
        "metric",
        [
            ("K00001", _B, "the documented series of agent and controller are served, and move"),
            (
                "K00002",
                "the counters of RDMA devices come later, and no kernel here has such a device",
                "rdma_* series of RDMA devices",
            ),
        ],
    ),
    *_area(
        "podwebhook",
        [("H00001", _B, "rdma-resource-inject: networks and resources are injected into the pod")],
    ),
    *_area(
        "reclaim",
        [
            ("G00001", _B, "a namespace deleted: every address of its pods is freed"),
            ("G00002", _B, "pods of one name in two namespaces: the other's record stays"),
            ("G00003", _B, "workloads end and no DEL ever comes: collection frees their addresses"),
            ("G00004", _B, "a pod deleted with grace 0: its address is freed"),
            ("G00005", _K, "a planted record of a wrong pod name is removed"),
            ("G00006", _B, "a Job's pod that ended gives its address back"),
            ("G00007", _K, "a planted record of a wrong UID is removed"),
            ("G00008", _B, "agent and controller restart while pods come and go: no leak"),
            (
                "G00009",
                _B,
                "a node not ready: addresses of its stateless pods are released where the switch is on",
            ),
            ("G00010", _K, "a StatefulSet leaves the pool: record and endpoint are removed"),
            (
                "G00011",
                _B,
                "two StatefulSets on one pool, scaled up and down: no shared address, endpoints agree",
            ),
            (
                "G00012",
                _K,
                "many kinds of workload compete for one pool while parts restart: no duplicate, then all clean",
            ),
        ],
    ),
    *_area(
        "reliability",
        [
            ("R00001", _B, "the controller restarts: a new pod runs"),
            ("R00002", _K, "etcd restarts: a pod finally runs"),
            ("R00003", _K, "the API server restarts: a pod finally runs"),
            ("R00004", _B, "the agent restarts: a pod finally runs"),
            ("R00005", _K, "the pods of the cluster's DNS (a stand-in without a server) restart: a pod runs"),
            ("R00006", _K, "a node is powered off: the pod recovers, addresses agree"),
            ("R00007", _K, "the leading controller is killed: another takes over"),
        ],
    ),
    *_area(
        "reservedip",
        [
            ("S00001", _B, "a reserved address is never given; once free, the pod runs"),
            ("S00002", _S, "an excluded address is never given"),
            ("S00003", _B, "excluding an address in use is refused"),
            ("S00004", _S, "exclusions of a pool under a SpiderSubnet: the total is right, none is given"),
        ],
    ),
    *_area(
        "spidercoordinator",
        [
            (
                "V00001",
                _K,
                "podCIDRType auto with flannel's, Calico's or Cilium's CNI file: the CIDRs of that network",
            ),
            ("V00002", _K, "podCIDRType auto without a CNI file but Multus': empty and Synced"),
            ("V00003", _K, "podCIDRType calico: the CIDRs of Calico's enabled pools, as they come and go"),
            ("V00004", _K, "podCIDRType cilium: the CIDRs of modes cluster-pool, kubernetes and multi-pool"),
            ("V00005", _K, "podCIDRType none: overlayPodCIDR empty and Synced"),
            ("V00006", _K, "phase NotReady, by whatever cause, after Synced: the lists are empty"),
            ("V00007", _PATH, "the SpiderCoordinator is weaker than annotation and network"),
            ("V00008", _PATH, "NotReady: pods with the coordinator do not start"),
            (
                "V00009",
                _K,
                "the cluster's CIDR from kubeadm-config, else from kube-controller-manager's flags",
            ),
            ("V00010", _K, "serviceCIDR follows the ServiceCIDR objects"),
            ("V00011", _K, "neither source: NotReady and empty; recovers"),
        ],
    ),
    *_area(
        "spidermultus",
        [
            ("M00001", _B, "macvlan: a net-attach-def of macvlan and coordinator, owned by its source"),
            ("M00002", _B, "ipvlan: a net-attach-def of ipvlan and coordinator, owned by its source"),
            ("M00003", _B, "sriov: a net-attach-def with the resource's name as annotation"),
            ("M00004", _B, "custom: its text copied as it is"),
            ("M00005", _B, "custom with invalid JSON: refused"),
            ("M00006", _B, "two masters, bond and VLAN: ifacer first, the master is <bond>.<vlan>"),
            ("M00007", _K, "a net-attach-def deleted by hand comes back"),
            ("M00008", _K, "the source deleted: the net-attach-def goes"),
            ("M00009", _B, "a second master and a bond: rendered again"),
            ("M00010", _B, "cr-name gives the net-attach-def's name"),
            ("M00011", _B, "cr-names that clash: refused"),
            ("M00012", _B, "cni-version is in the rendered configuration"),
            ("M00013", _B, "an unsupported cni-version: refused"),
            ("M00014", _K, "an unowned net-attach-def of the name is taken over"),
            ("M00015", _B, "cniType and block disagree: refused"),
            ("M00016", _B, "vlanID -1 or 4095: refused"),
            ("M00017", _B, "disableIPAM: no ipam"),
            ("M00019", _B, "an empty spec: accepted, a net-attach-def without configuration"),
            ("M00020", _B, "cr-name empty or longer than 253: refused"),
            (
                "M00021",
                _B,
                "chainCNIJsonData: what is no plugin is refused; a tuning plugin is rendered, and its sysctl is in the pod",
            ),
            (
                "M00022",
                _B,
                "podRPFilter and hostRPFilter in the coordinator's block, or none: accepted, two plugins",
            ),
            ("M00023", _B, "podRPFilter 4: refused"),
            ("M00024", _B, "podMACPrefix: 9e:10 accepted, multicast refused"),
            ("M00025", _B, "cr-name that is no DNS-1123 name: refused"),
            ("M00026", _PATH, "vethLinkAddress on veth0"),
            ("M00027", _B, "rdma-resource-inject with resource and pools: accepted"),
            ("M00028", _B, "rdma-resource-inject without a resource: refused"),
            ("M00029", _B, "rdma-resource-inject without pools: refused"),
            ("M00030", _B, "rdma-resource-inject on ovs: refused"),
            ("M00031", _B, "network-resource-inject with resource and pools: accepted"),
            ("M00032", _B, "network-resource-inject without pools: refused"),
            ("M00033", _B, "macvlan mtu: negative refused, positive rendered and on the interface"),
            (
                "M00034",
                _B,
                "ipvlan mtu: negative refused, positive rendered (on an interface: later, by ipvlan)",
            ),
            ("M00035", _B, "sriov mtu: negative refused, positive rendered as a tuning plugin"),
            ("M00036", _S, "networks as compact JSON: both interfaces have addresses"),
            ("M00037", _S, "networks as pretty-printed JSON: both interfaces have addresses"),
            ("M00038", _B, "vlan type with a vlanID: rendered as vlanId"),
            ("M00039", _B, "vlanMode auto: rendered without vlanId"),
            ("M00040", _B, "vlanMode auto with a vlanID: refused"),
        ],
    ),
]
CASES = {one.name: one for one in _ALL}
