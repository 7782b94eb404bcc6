"""The settings that a cluster user writes: ConfigMap `spiderpool-conf`, key `conf.yml`.

Owns their names (both spellings where the chart and its reader disagree), defaults and limits. Must not know who acts on them;
the services' own configuration files are shared/settings.py.
"""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from shared.manifests import shape
from shared.manifests.meta import LabelSelector, Part
from shared.manifests.problem import FieldError, Invalid, entry, invalid, member
from shared.manifests.selector import key_error, selector_errors
from shared.manifests.workload import ConfigMap
from shared.manifests.yamltree import load

CONFIG_MAP = "spiderpool-conf"
CONF_KEY = "conf.yml"
CLUSTER_NETWORK_KEY = "clusterNetwork"
DEFAULT_INSTALLATION_NAMESPACE = "kube-system"
POD_VALIDATIONS = ("enforce", "warn", "off")
_ROOT = entry("data", CONF_KEY)


class PodResourceInject(Part, frozen=True, kw_only=True):
    enabled: bool = False
    namespaces_exclude: tuple[str, ...] = ("kube-system", "spiderpool", "metallb-system", "istio-system")
    namespaces_include: tuple[str, ...] = ()


class DevicePluginAffinity(Part, frozen=True, kw_only=True):
    node_selector: LabelSelector = LabelSelector()


class SubENIRule(Part, frozen=True, kw_only=True):
    resource_name: str = "spidernet.io/sub-eni"
    default_max_count: int = 0
    node_selector: LabelSelector = LabelSelector()


class SubENI(Part, frozen=True, kw_only=True):
    rules: tuple[SubENIRule, ...] = ()


class MasterNICRule(Part, frozen=True, kw_only=True):
    node_selector: LabelSelector = LabelSelector()
    default_max_count: int = 10000
    include_interfaces: tuple[str, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()


class MasterNIC(Part, frozen=True, kw_only=True):
    rules: tuple[MasterNICRule, ...] = ()


class ResourceAdvertisement(Part, frozen=True, kw_only=True):
    sub_eni: SubENI = msgspec.field(default=SubENI(), name="subENI")
    master_nic: MasterNIC = msgspec.field(default=MasterNIC(), name="masterNIC")


class NetworkResourcePlugin(Part, frozen=True, kw_only=True):
    enabled: bool = False
    kubelet_root_dir: str = "/var/lib/kubelet"
    device_plugin_affinity: DevicePluginAffinity = DevicePluginAffinity()
    resource_advertisement: ResourceAdvertisement = ResourceAdvertisement()


class Agent(Part, frozen=True, kw_only=True):
    network_resource_plugin: NetworkResourcePlugin = NetworkResourcePlugin()


class IaaSNetworkProvider(Part, frozen=True, kw_only=True):
    server_url: str = ""
    http_request_timeout: str = "50s"


class CollectAll(Part, frozen=True, kw_only=True):
    interval_in_second: int = 600


class CollectStateless(Part, frozen=True, kw_only=True):
    """Of pods that no StatefulSet keeps addresses for: those that terminate or have finished, by the readiness of their node; and
    running ones whose status shows no address."""

    zombie_on_ready_node: bool = True
    zombie_on_not_ready_node: bool = True
    enable_gc_running_pod_on_empty_pod_status_ips: bool = msgspec.field(
        default=False, name="enableGcRunningPodOnEmptyPodStatusIPs"
    )


class Collection(Part, frozen=True, kw_only=True):
    """Garbage collection, by the names of the chart's `ipam.gc`. The delay, in seconds, is added to every grace period."""

    enabled: bool = True
    gc_all: CollectAll = CollectAll()
    gc_deleting_time_out_pod_delay: int = 0
    stateless_pod: CollectStateless = CollectStateless()


class Settings(Part, frozen=True, kw_only=True):
    """conf.yml with its defaults; `cluster_network` and `namespace` come from the ConfigMap around it."""

    ipam_unix_socket_path: str = "/var/run/spidernet/spiderpool.sock"
    enable_ipv4: bool = msgspec.field(default=True, name="enableIPv4")
    enable_ipv6: bool = msgspec.field(default=True, name="enableIPv6")
    enable_stateful_set: bool = True
    enable_kubevirt_static_ip: bool = msgspec.field(default=True, name="enableKubevirtStaticIP")
    enable_spider_subnet: bool = True
    enable_auto_pool_for_application: bool = True
    cluster_subnet_default_flexible_ip_number: int = msgspec.field(
        default=1, name="clusterSubnetDefaultFlexibleIPNumber"
    )
    enable_ip_conflict_detection: bool = msgspec.field(default=False, name="enableIPConflictDetection")
    enable_gateway_detection: bool = False
    enable_clean_outdated_endpoint: bool = False
    enable_validating_resources_deleted_webhook: bool = False
    tune_sysctl_config: bool = True
    pod_validation: str = "enforce"
    """What admission does about pods that cannot start: `enforce` refuses them, `warn` says so, `off` does not look. A key of ours."""
    pod_resource_inject: PodResourceInject = PodResourceInject()
    agent: Agent = Agent()
    iaas_network_provider: IaaSNetworkProvider = IaaSNetworkProvider()
    gc: Collection = Collection()
    cluster_network: str = ""
    namespace: str = DEFAULT_INSTALLATION_NAMESPACE

    def family_enabled(self, family: int) -> bool:
        return self.enable_ipv4 if family == 4 else self.enable_ipv6


_FLEXIBLE = "clusterSubnetDefaultFlexibleIPNumber"
_REDUNDANT = "clusterSubnetAutoPoolDefaultRedundantIPNumber"
"""The name that Spiderpool's own code looks for, although its chart writes the other. It wins where both stand."""


def settings_of(config_map: ConfigMap) -> Settings | Invalid:
    """The settings of a ConfigMap, or everything that is wrong with it. Unknown keys are ignored."""
    settings = parse(config_map.data.get(CONF_KEY, ""))
    if isinstance(settings, Invalid):
        return settings
    return msgspec.structs.replace(
        settings,
        cluster_network=config_map.data.get(CLUSTER_NETWORK_KEY, "").strip(),
        namespace=config_map.metadata.namespace or DEFAULT_INSTALLATION_NAMESPACE,
    )


def parse(text: str) -> Settings | Invalid:
    """conf.yml as settings. Errors carry paths such as `data[conf.yml].enableIPv4`."""
    trees = load(text)
    if not trees:
        return Settings()
    tree = trees[0]
    if len(trees) > 1:
        return Invalid(errors=(invalid(_ROOT, "must be one YAML document"),))
    if tree.errors:
        return Invalid(errors=tuple(_under_root(error, line) for error, line in tree.errors))
    if tree.value is None:
        return Settings()
    if not isinstance(tree.value, dict):
        return Invalid(errors=(invalid(_ROOT, "must be a YAML map of settings"),))
    written = cast("dict[str, Any]", tree.value)
    members = {key: value for key, value in written.items() if key not in ("clusterNetwork", "namespace")}
    if _REDUNDANT in members:
        members[_FLEXIBLE] = members.pop(_REDUNDANT)
    decoded, misfits = shape.lenient(Settings, members, _ROOT)
    if isinstance(decoded, Invalid):
        return decoded
    errors = (*misfits, *shape.besides(_limits(decoded), misfits))
    return Invalid(errors=errors) if errors else _dependent(decoded, members)


WITHOUT_EFFECT = ("enableGatewayDetection", "enableIPConflictDetection")
"""Features of a later version, off by default."""


def warnings_of(config_map: ConfigMap) -> list[FieldError]:
    """Settings that are taken and have no effect yet."""
    settings = settings_of(config_map)
    if isinstance(settings, Invalid):
        return []
    switched = (settings.enable_gateway_detection, settings.enable_ip_conflict_detection)
    return [
        invalid(member(_ROOT, key), "is not served in this version, so it has no effect", "Unknown")
        for key, on in zip(WITHOUT_EFFECT, switched, strict=True)
        if on
    ]


def _under_root(error: FieldError, line: int) -> FieldError:
    field = f"{_ROOT}.{error.field}" if error.field else _ROOT
    return invalid(field, f"line {line}: {error.message}", error.code)


def _dependent(settings: Settings, members: dict[str, Any]) -> Settings:
    """Auto pools need subnets, and the flexible number needs auto pools."""
    auto = settings.enable_auto_pool_for_application and settings.enable_spider_subnet
    number = settings.cluster_subnet_default_flexible_ip_number if auto else 0
    return msgspec.structs.replace(
        settings,
        enable_auto_pool_for_application=auto,
        cluster_subnet_default_flexible_ip_number=number,
    )


def _limits(settings: Settings) -> list[FieldError]:
    out: list[FieldError] = []

    def wrong(path: str, message: str) -> None:
        out.append(invalid(member(_ROOT, path), message))

    if settings.pod_validation not in POD_VALIDATIONS:
        wrong("podValidation", f"{settings.pod_validation!r} is not one of {', '.join(POD_VALIDATIONS)}")
    if settings.cluster_subnet_default_flexible_ip_number < 0:
        wrong(_FLEXIBLE, "must equal or greater than 0")
    if not settings.ipam_unix_socket_path.startswith("/"):
        wrong("ipamUnixSocketPath", "must be an absolute path")
    if settings.gc.gc_all.interval_in_second < 1:
        wrong("gc.gcAll.intervalInSecond", "must equal or greater than 1")
    if settings.gc.gc_deleting_time_out_pod_delay < 0:
        wrong("gc.gcDeletingTimeOutPodDelay", "must equal or greater than 0")
    plugin = settings.agent.network_resource_plugin
    base = "agent.networkResourcePlugin"
    if not plugin.kubelet_root_dir.startswith("/"):
        wrong(f"{base}.kubeletRootDir", "must be an absolute path")
    affinity = f"{_ROOT}.{base}.devicePluginAffinity.nodeSelector"
    out += selector_errors(plugin.device_plugin_affinity.node_selector, affinity)
    for i, rule in enumerate(plugin.resource_advertisement.sub_eni.rules):
        path = f"{base}.resourceAdvertisement.subENI.rules[{i}]"
        sentence = key_error(rule.resource_name)
        if sentence:
            wrong(f"{path}.resourceName", f"must be a qualified name: {sentence}")
        if rule.default_max_count < 0:
            wrong(f"{path}.defaultMaxCount", "must equal or greater than 0")
        out += selector_errors(rule.node_selector, f"{_ROOT}.{path}.nodeSelector")
    for i, nic in enumerate(plugin.resource_advertisement.master_nic.rules):
        path = f"{base}.resourceAdvertisement.masterNIC.rules[{i}]"
        if nic.default_max_count < 0:
            wrong(f"{path}.defaultMaxCount", "must equal or greater than 0")
        out += selector_errors(nic.node_selector, f"{_ROOT}.{path}.nodeSelector")
    return out + _provider(settings.iaas_network_provider)


def _provider(provider: IaaSNetworkProvider) -> list[FieldError]:
    out: list[FieldError] = []
    path = f"{_ROOT}.iaasNetworkProvider"
    if provider.server_url:
        try:
            url = urlsplit(provider.server_url)
            sound = url.scheme in ("http", "https") and bool(url.hostname)
        except ValueError:
            sound = False
        if not sound:
            out.append(invalid(f"{path}.serverUrl", "must be an http or https URL with a host"))
    if provider.http_request_timeout:
        seconds = duration_s(provider.http_request_timeout)
        if seconds is None or not 0 < seconds < 100:
            out.append(
                invalid(
                    f"{path}.httpRequestTimeout", "must be a duration above 0 and below 100s, such as 50s"
                )
            )
    return out


_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")


def duration_s(text: str) -> float | None:
    """Seconds of a Go duration (`1m30s`), None if it is none."""
    total, at = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != at:
            return None
        total += float(part[1]) * _UNITS_S[part[2]]
        at = part.end()
    return total if at == len(text) and at > 0 else None
