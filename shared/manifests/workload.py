"""The parts that we read of the kinds of Kubernetes itself: Pod, Namespace, Node, ConfigMap, and what owns pods.

Owns their types. Must not know anything that we do not read: other members stay in the stored JSON.
"""

from __future__ import annotations

import msgspec

from shared.manifests.meta import LabelSelector, Object, ObjectMeta, Part


class Container(Part, frozen=True, kw_only=True):
    name: str = ""


class PodSpec(Part, frozen=True, kw_only=True):
    node_name: str = ""
    host_network: bool = False
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    service_account_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(Part, frozen=True, kw_only=True):
    ip: str = ""


class Terminated(Part, frozen=True, kw_only=True):
    finished_at: str = ""


class ContainerState(Part, frozen=True, kw_only=True):
    terminated: Terminated | None = None


class ContainerStatus(Part, frozen=True, kw_only=True):
    name: str = ""
    state: ContainerState = ContainerState()


class PodStatus(Part, frozen=True, kw_only=True):
    phase: str = ""
    reason: str = ""
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object, frozen=True, kw_only=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Namespace(Object, frozen=True, kw_only=True):
    pass


class Taint(Part, frozen=True, kw_only=True):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(Part, frozen=True, kw_only=True):
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class Condition(Part, frozen=True, kw_only=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class NodeStatus(Part, frozen=True, kw_only=True):
    conditions: tuple[Condition, ...] = ()


class Node(Object, frozen=True, kw_only=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ConfigMap(Object, frozen=True, kw_only=True):
    data: dict[str, str] = msgspec.field(default_factory=dict)


class PodTemplate(Part, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class Ordinals(Part, frozen=True, kw_only=True):
    start: int = 0


class WorkloadSpec(Part, frozen=True, kw_only=True):
    """The spec of Deployment, ReplicaSet, StatefulSet, DaemonSet and Job, as far as addresses depend on it."""

    replicas: int | None = None
    completions: int | None = None
    parallelism: int | None = None
    ordinals: Ordinals = Ordinals()
    selector: LabelSelector | None = None
    template: PodTemplate = PodTemplate()


class WorkloadStatus(Part, frozen=True, kw_only=True):
    desired_number_scheduled: int = 0


class Workload(Object, frozen=True, kw_only=True):
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


class JobTemplate(Part, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: WorkloadSpec = WorkloadSpec()


class CronJobSpec(Part, frozen=True, kw_only=True):
    job_template: JobTemplate = JobTemplate()


class CronJob(Object, frozen=True, kw_only=True):
    spec: CronJobSpec = CronJobSpec()
