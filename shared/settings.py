"""Settings of every service: one JSON or YAML file given by `--config`, mode 0600 because it holds a credential.

Owns the Structs and their reading. Must not know who wrote the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from shared.limits import LOG_HISTORY_S, SNAPSHOT_RECORDS

S = TypeVar("S", bound=msgspec.Struct)


class BusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one identity reaches its NATS server: the hub for services, the node's leaf for agent and RDMA service.

    `inbox_prefix` is what the identity may subscribe to (shared.subjects.inbox / node_inbox)."""

    servers: tuple[str, ...]
    user: str
    password: str
    inbox_prefix: str
    tls_ca_file: str = ""


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`http_address` serves /healthz, /readyz and /metrics (`host:port`, port 0 = any). `otlp_endpoint` empty = no OTLP."""

    http_address: str = "127.0.0.1:0"
    otlp_endpoint: str = ""
    log_level: str = "info"
    sample_ratio: float = 1.0


class AllocatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`system` is the system account's user, by which the servers' sync_interval is read. `stream_replicas` is 1 or 3.

    `mark_file` keeps incarnation and last sequence outside JetStream. A snapshot is taken every `snapshot_records` records;
    records stay for `log_history_s` at least."""

    replica: str
    bus: BusSettings
    system: BusSettings
    telemetry: TelemetrySettings = TelemetrySettings()
    stream_replicas: int = 1
    mark_file: str
    snapshot_records: int = SNAPSHOT_RECORDS
    log_history_s: float = LOG_HISTORY_S


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`source` is `manifests`, the folder of that name, or `kubernetes`: by `kubeconfig`, or from inside the cluster where it is empty.

    `coordinator` names the SpiderCoordinator whose status we keep, `cni_config_dir` is the host's CNI directory (for podCIDRType
    auto), `cilium_config` Cilium's ConfigMap as `namespace/name`. `lease` is the Lease by which replicas elect their leader."""

    replica: str
    bus: BusSettings
    telemetry: TelemetrySettings = TelemetrySettings()
    source: Literal["manifests", "kubernetes"] = "manifests"
    manifests: str = ""
    kubeconfig: str = ""
    installation_namespace: str = "kube-system"
    lease: str = "orbweaver-controller"
    coordinator: str = "default"
    cni_config_dir: str = "/etc/cni/net.d"
    cilium_config: str = "kube-system/cilium-config"
    allocated_ips_max: int = 5000
    stream_replicas: int = 1
    poll_s: float = 0.5


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`https_address` is where the API server reaches us; `certificates` a directory with ca.crt, tls.crt, tls.key (made if absent)."""

    replica: str
    bus: BusSettings
    telemetry: TelemetrySettings = TelemetrySettings()
    https_address: str
    certificates: str
    server_names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`netns` is the network namespace that is the node, empty for the agent's own. `state` holds the journal. `foreign_netns`
    are other nodes' on the same machine, which no pod may name as its own; the agent's own never may."""

    node: str
    bus: BusSettings
    telemetry: TelemetrySettings = TelemetrySettings()
    state: str
    netns: str = ""
    foreign_netns: tuple[str, ...] = ()
    reconcile_interval_s: float = 30.0


class RdmaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    node: str
    bus: BusSettings
    telemetry: TelemetrySettings = TelemetrySettings()
    sysfs: str = "/sys"
    interval_s: float = 30.0


def read_settings(path: Path, settings_type: type[S]) -> S:
    """Reads one service's settings. Raises ValueError that names the file and the key."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    try:
        return decode(text, type=settings_type)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from None
