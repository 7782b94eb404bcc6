"""The table of kinds: what each is called, where it lives, whether it is ours, and its type.

Owns the look-up by any name that kubectl takes (Kind, plural, singular, short name, with or without the group).
Must not know any rule about an object; a kind that is not in the table is stored and shown, never an error.
"""

from __future__ import annotations

import msgspec

from shared.manifests.ipam import SpiderEndpoint, SpiderIPPool, SpiderReservedIP, SpiderSubnet
from shared.manifests.meta import Object
from shared.manifests.network import NetworkAttachmentDefinition, SpiderCoordinator, SpiderMultusConfig
from shared.manifests.workload import ConfigMap, CronJob, Namespace, Node, Pod, Workload

GROUP = "spiderpool.spidernet.io"
API_VERSION = f"{GROUP}/v2beta1"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `ours` are the kinds whose rules admission knows in full; `type` is what we decode the object to."""

    kind: str
    api_version: str
    plural: str
    short: str = ""
    namespaced: bool = True
    ours: bool = False
    type: type[Object] = Object

    @property
    def group(self) -> str:
        return group_of(self.api_version)

    @property
    def singular(self) -> str:
        return self.kind.lower()


def group_of(api_version: str) -> str:
    """The API group of an apiVersion; "" is the core group."""
    return api_version.rpartition("/")[0]


def _ours(kind: str, short: str, namespaced: bool, type_: type[Object]) -> Kind:
    return Kind(
        kind=kind,
        api_version=API_VERSION,
        plural=f"{kind.lower()}s",
        short=short,
        namespaced=namespaced,
        ours=True,
        type=type_,
    )


_SRIOV = "sriovnetwork.openshift.io/v1"
KINDS: tuple[Kind, ...] = (
    _ours("SpiderIPPool", "sp", False, SpiderIPPool),
    _ours("SpiderSubnet", "ss", False, SpiderSubnet),
    _ours("SpiderReservedIP", "sr", False, SpiderReservedIP),
    _ours("SpiderEndpoint", "se", True, SpiderEndpoint),
    _ours("SpiderMultusConfig", "smc", True, SpiderMultusConfig),
    _ours("SpiderCoordinator", "scc", False, SpiderCoordinator),
    Kind(kind="Pod", api_version="v1", plural="pods", short="po", type=Pod),
    Kind(
        kind="Namespace", api_version="v1", plural="namespaces", short="ns", namespaced=False, type=Namespace
    ),
    Kind(kind="Node", api_version="v1", plural="nodes", short="no", namespaced=False, type=Node),
    Kind(kind="ConfigMap", api_version="v1", plural="configmaps", short="cm", type=ConfigMap),
    Kind(kind="Deployment", api_version="apps/v1", plural="deployments", short="deploy", type=Workload),
    Kind(kind="ReplicaSet", api_version="apps/v1", plural="replicasets", short="rs", type=Workload),
    Kind(kind="StatefulSet", api_version="apps/v1", plural="statefulsets", short="sts", type=Workload),
    Kind(kind="DaemonSet", api_version="apps/v1", plural="daemonsets", short="ds", type=Workload),
    Kind(kind="Job", api_version="batch/v1", plural="jobs", type=Workload),
    Kind(kind="CronJob", api_version="batch/v1", plural="cronjobs", short="cj", type=CronJob),
    Kind(
        kind="NetworkAttachmentDefinition",
        api_version="k8s.cni.cncf.io/v1",
        plural="network-attachment-definitions",
        short="net-attach-def",
        type=NetworkAttachmentDefinition,
    ),
    # Named by the API's documentation, kept as they are: only their scope matters here.
    Kind(kind="ServiceCIDR", api_version="networking.k8s.io/v1", plural="servicecidrs", namespaced=False),
    Kind(kind="IPPool", api_version="crd.projectcalico.org/v1", plural="ippools", namespaced=False),
    Kind(
        kind="CiliumPodIPPool", api_version="cilium.io/v2alpha1", plural="ciliumpodippools", namespaced=False
    ),
    Kind(kind="VirtualMachine", api_version="kubevirt.io/v1", plural="virtualmachines", short="vm"),
    Kind(
        kind="VirtualMachineInstance",
        api_version="kubevirt.io/v1",
        plural="virtualmachineinstances",
        short="vmi",
    ),
    Kind(
        kind="VirtualMachineInstanceMigration",
        api_version="kubevirt.io/v1",
        plural="virtualmachineinstancemigrations",
        short="vmim",
    ),
    Kind(kind="SriovNetwork", api_version=_SRIOV, plural="sriovnetworks"),
    Kind(kind="SriovIBNetwork", api_version=_SRIOV, plural="sriovibnetworks"),
    Kind(kind="OVSNetwork", api_version=_SRIOV, plural="ovsnetworks"),
    Kind(kind="SriovNetworkNodePolicy", api_version=_SRIOV, plural="sriovnetworknodepolicies"),
    Kind(kind="SriovNetworkNodeState", api_version=_SRIOV, plural="sriovnetworknodestates"),
    Kind(kind="SriovNetworkPoolConfig", api_version=_SRIOV, plural="sriovnetworkpoolconfigs"),
    Kind(kind="SriovOperatorConfig", api_version=_SRIOV, plural="sriovoperatorconfigs"),
    Kind(kind="Service", api_version="v1", plural="services", short="svc"),
    Kind(kind="Secret", api_version="v1", plural="secrets"),
    Kind(kind="ServiceAccount", api_version="v1", plural="serviceaccounts", short="sa"),
)

BY_KIND: dict[str, Kind] = {row.kind: row for row in KINDS}
_BY_GROUP_KIND: dict[tuple[str, str], Kind] = {(row.group, row.kind): row for row in KINDS}
_BY_NAME: dict[str, Kind] = {}
for _row in KINDS:
    for _name in (_row.plural, _row.singular, _row.short):
        if _name:
            _BY_NAME.setdefault(_name, _row)
            if _row.group:
                _BY_NAME.setdefault(f"{_name}.{_row.group}", _row)
_BY_NAME["net-attach-defs"] = BY_KIND["NetworkAttachmentDefinition"]


def lookup(name: str) -> Kind | None:
    """The kind that a person means: `sp`, `spiderippools`, `SpiderIPPool`, `spiderippools.spiderpool.spidernet.io`."""
    return _BY_NAME.get(name.lower())


def kind_of(api_version: str, kind: str) -> Kind | None:
    """The row of an object; None where the kind, or its group, is not in the table. Versions within a group are one."""
    return _BY_GROUP_KIND.get((group_of(api_version), kind))
