"""Settings of every service: one JSON or YAML file given by `--config`, mode 0600 where it holds a credential.

Owns the Structs and their reading: `${NAME}` in a string is that variable of the environment, and what a cluster mounts as files
(a password, the hub's addresses) is read from them. Must not know who wrote the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec

from shared.limits import LOG_HISTORY_S, SNAPSHOT_RECORDS
from shared.subjects import inbox, node_inbox

S = TypeVar("S", bound=msgspec.Struct)


class BusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one identity reaches its NATS server: the hub for services, the node's leaf for agent and RDMA service.

    `inbox_prefix` is what the identity may subscribe to; empty in a file, it is that of the user or the node (shared.subjects.inbox /
    node_inbox). `servers_folder` and `password_file` are
    where the two stand instead: in the folder each file whose name begins with `hub.` has one server's URL. `tls_ca_file` is checked
    against, and with it the link is encrypted."""

    servers: tuple[str, ...] = ()
    user: str
    password: str = ""
    inbox_prefix: str = ""
    tls_ca_file: str = ""
    servers_folder: str = ""
    password_file: str = ""


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
    auto), `cilium_config` Cilium's ConfigMap as `namespace/name`. `lease` is the Lease by which replicas elect their leader. With
    `adopt` what Spiderpool gave becomes leases, before the first address is given."""

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
    adopt: bool = True
    stream_replicas: int = 1
    poll_s: float = 0.5


class ClusterAdmissionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The webhook in a cluster. `kubeconfig` is empty inside it, `namespace` our own. `secret` holds the authority that replicas share;
    empty: somebody else puts the certificates into the directory. `configuration` names both webhook configurations."""

    kubeconfig: str = ""
    namespace: str = "orbweaver-system"
    secret: str = "orbweaver-webhook-ca"
    configuration: str = "orbweaver"


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`https_address` is where the API server reaches us; `certificates` a directory with ca.crt, tls.crt, tls.key (made if absent).
    Without `cluster` no Kubernetes is asked for anything."""

    replica: str
    bus: BusSettings
    telemetry: TelemetrySettings = TelemetrySettings()
    https_address: str
    certificates: str
    server_names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    cluster: ClusterAdmissionSettings | None = None


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


class ToolsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the `orbweaver` command reaches a cluster's bus."""

    bus: BusSettings


_VARIABLE = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")


class Awaited(ValueError):
    """A file that is put there by somebody else (a cluster, the node's leaf) is not there yet."""


def read_settings(path: Path, settings_type: type[S]) -> S:
    """Reads one service's settings, files and variables that they name included. Raises ValueError that names the file and the key,
    Awaited where only such a file is missing."""
    return with_files(settings_as_written(path, settings_type))


def settings_as_written(path: Path, settings_type: type[S]) -> S:
    """As `read_settings`, without the files that the settings name."""
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    try:
        settings = msgspec.convert(_with_variables(decode(_read(path))), settings_type, strict=False)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path}: the environment has no variable {error.args[0]}") from None
    for bus in _buses(settings).values():
        if not bus.servers and not bus.servers_folder:
            raise ValueError(f"{path}: bus of {bus.user}: neither servers nor servers_folder is given")
    return settings


def with_files(settings: S) -> S:
    """With what stands in the files that they name. Raises as `read_settings`."""
    node = getattr(settings, "node", "")
    found = {field: _with_files(bus, node) for field, bus in _buses(settings).items()}
    return msgspec.structs.replace(settings, **found) if found else settings


def _buses(settings: msgspec.Struct) -> dict[str, BusSettings]:
    return {
        field: value
        for field in settings.__struct_fields__
        if isinstance(value := getattr(settings, field), BusSettings)
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _awaited(path: Path) -> str:
    if not path.exists():
        raise Awaited(f"{path} is not there yet")
    return _read(path).decode().strip()


def _with_variables(tree: Any) -> Any:
    match tree:
        case str():
            return _VARIABLE.sub(lambda found: os.environ[found[1]], tree)
        case list():
            return [_with_variables(one) for one in cast("list[Any]", tree)]
        case dict():
            return {key: _with_variables(value) for key, value in cast("dict[Any, Any]", tree).items()}
        case _:
            return tree


def _with_files(bus: BusSettings, node: str) -> BusSettings:
    if not bus.inbox_prefix:
        prefix = node_inbox(node, bus.user) if node else inbox(bus.user)
        bus = msgspec.structs.replace(bus, inbox_prefix=prefix)
    if bus.password_file:
        password = _awaited(Path(bus.password_file))
        bus = msgspec.structs.replace(bus, password=password, password_file="")
    if bus.servers_folder:
        servers = hub_servers(Path(bus.servers_folder))
        if not servers:
            raise Awaited(f"{bus.servers_folder}: no server of the hub is known yet")
        bus = msgspec.structs.replace(bus, servers=servers)
    if bus.tls_ca_file:
        _awaited(Path(bus.tls_ca_file))
    return bus


def hub_servers(folder: Path) -> tuple[str, ...]:
    """The URLs of the hub's servers that a cluster has put into this folder, by file name."""
    return tuple(path.read_text().strip() for path in sorted(folder.glob("hub.*")))
