"""spiderpool-conf: defaults, both spellings, limits, errors with paths."""

from __future__ import annotations

import pytest

from shared.manifests.problem import Invalid
from shared.manifests.settings import Settings, duration_s, parse, settings_of
from shared.manifests.workload import ConfigMap


def read(text: str) -> Settings:
    found = parse(text)
    assert isinstance(found, Settings), found
    return found


def fields(text: str) -> list[str]:
    found = parse(text)
    assert isinstance(found, Invalid)
    return [error.field.removeprefix("data[conf.yml].") for error in found.errors]


def test_defaults() -> None:
    for text in ("", "\n", "# nothing\n", "---\n", "{}", "null"):
        assert read(text) == Settings()
    assert Settings().enable_ipv4 and Settings().enable_ipv6
    assert Settings().cluster_subnet_default_flexible_ip_number == 1


def test_the_file_of_the_chart() -> None:
    settings = read("""
ipamUnixSocketPath: /var/run/spidernet/spiderpool.sock
enableIPv4: true
enableIPv6: false
enableStatefulSet: false
enableKubevirtStaticIP: false
enableSpiderSubnet: true
clusterSubnetDefaultFlexibleIPNumber: 3
enableIPConflictDetection: true
enableGatewayDetection: true
enableValidatingResourcesDeletedWebhook: true
tuneSysctlConfig: false
podResourceInject:
  enabled: true
  namespacesExclude: [kube-system]
  namespacesInclude: []
agent:
  networkResourcePlugin:
    enabled: true
    resourceAdvertisement:
      subENI:
        rules:
        - {defaultMaxCount: 5, nodeSelector: {matchLabels: {a: b}}}
      masterNIC:
        rules:
        - {includeInterfaces: ["eth*"]}
iaasNetworkProvider: {serverUrl: "https://cloud.example", httpRequestTimeout: 1m30s}
""")
    assert not settings.enable_ipv6
    assert not settings.family_enabled(6)
    assert settings.cluster_subnet_default_flexible_ip_number == 3
    assert settings.pod_resource_inject.namespaces_exclude == ("kube-system",)
    plugin = settings.agent.network_resource_plugin
    assert plugin.resource_advertisement.sub_eni.rules[0].resource_name == "spidernet.io/sub-eni"
    assert plugin.resource_advertisement.sub_eni.rules[0].node_selector.match_labels == {"a": "b"}
    assert plugin.resource_advertisement.master_nic.rules[0].default_max_count == 10000


def test_both_spellings_of_the_redundant_number() -> None:
    assert read("clusterSubnetDefaultFlexibleIPNumber: 2").cluster_subnet_default_flexible_ip_number == 2
    both = "clusterSubnetDefaultFlexibleIPNumber: 2\nclusterSubnetAutoPoolDefaultRedundantIPNumber: 5"
    assert read(both).cluster_subnet_default_flexible_ip_number == 5


def test_what_depends_on_subnets() -> None:
    off = read("enableSpiderSubnet: false")
    assert not off.enable_auto_pool_for_application
    assert off.cluster_subnet_default_flexible_ip_number == 0
    assert read("enableAutoPoolForApplication: false").cluster_subnet_default_flexible_ip_number == 0


def test_unknown_keys_are_ignored() -> None:
    assert read("somethingNew: 5\nnamespace: x\nclusterNetwork: y") == Settings()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("enableIPv4: 5\nenableIPv6: maybe", ["enableIPv4", "enableIPv6"]),
        ("ipamUnixSocketPath: run.sock", ["ipamUnixSocketPath"]),
        ("clusterSubnetDefaultFlexibleIPNumber: -1", ["clusterSubnetDefaultFlexibleIPNumber"]),
        (
            "agent: {networkResourcePlugin: {kubeletRootDir: x}}",
            ["agent.networkResourcePlugin.kubeletRootDir"],
        ),
        (
            "agent: {networkResourcePlugin: {resourceAdvertisement: {subENI: {rules: [{resourceName: 'a b', defaultMaxCount: -1}]}}}}",
            [
                "agent.networkResourcePlugin.resourceAdvertisement.subENI.rules[0].resourceName",
                "agent.networkResourcePlugin.resourceAdvertisement.subENI.rules[0].defaultMaxCount",
            ],
        ),
        (
            "iaasNetworkProvider: {serverUrl: 'ftp://x', httpRequestTimeout: 100s}",
            ["iaasNetworkProvider.serverUrl", "iaasNetworkProvider.httpRequestTimeout"],
        ),
        (
            "iaasNetworkProvider: {serverUrl: 'https://[', httpRequestTimeout: x}",
            ["iaasNetworkProvider.serverUrl", "iaasNetworkProvider.httpRequestTimeout"],
        ),
        ("a: 1\na: 2", ["a"]),
        ("[a]", ["data[conf.yml]"]),
        ("a: 1\n---\nb: 2", ["data[conf.yml]"]),
        ("a: [", ["data[conf.yml]"]),
    ],
)
def test_errors_have_paths(text: str, wanted: list[str]) -> None:
    assert fields(text) == wanted


def test_the_config_map_around_it() -> None:
    raw = ConfigMap(data={"conf.yml": "enableIPv6: false", "clusterNetwork": " kube-system/macvlan "})
    settings = settings_of(raw)
    assert isinstance(settings, Settings)
    assert settings.cluster_network == "kube-system/macvlan"
    assert settings.namespace == "kube-system"
    assert not settings.enable_ipv6


def test_durations() -> None:
    assert duration_s("1m30s") == 90
    assert duration_s("500ms") == 0.5
    for bad in ("", "5", "s", "5 s", "1m!", "-5s"):
        assert duration_s(bad) is None


def test_the_switches_of_garbage_collection() -> None:
    text = "gc: {enabled: false, gcAll: {intervalInSecond: 30}, gcDeletingTimeOutPodDelay: 5, statelessPod: {zombieOnNotReadyNode: false, enableGcRunningPodOnEmptyPodStatusIPs: true}}"
    settings = parse(text)
    assert isinstance(settings, Settings)
    gc = settings.gc
    assert (gc.enabled, gc.gc_all.interval_in_second, gc.gc_deleting_time_out_pod_delay) == (False, 30, 5)
    assert (gc.stateless_pod.zombie_on_ready_node, gc.stateless_pod.zombie_on_not_ready_node) == (True, False)
    assert gc.stateless_pod.enable_gc_running_pod_on_empty_pod_status_ips
    assert (
        Settings().gc.enabled
        and not Settings().gc.stateless_pod.enable_gc_running_pod_on_empty_pod_status_ips
    )


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("gc: {enabled: sometimes}", "gc.enabled"),
        ("gc: {gcAll: {intervalInSecond: 0}}", "gc.gcAll.intervalInSecond"),
        ("gc: {gcDeletingTimeOutPodDelay: -1}", "gc.gcDeletingTimeOutPodDelay"),
    ],
)
def test_wrong_switches_of_garbage_collection_name_their_field(text: str, field: str) -> None:
    answer = parse(text)
    assert isinstance(answer, Invalid)
    assert field in answer.message
