"""The webhook behind a real API server: what people see who apply pools and pods, and what happens when it is away."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.admission.conftest import (
    NAMESPACE,
    OURS,
    REGISTRATION,
    Cluster,
    Json,
    eventually,
    pod,
    pool,
)
from tests.support.kube_client import ApiError

IPPOOL = "ipam.spidernet.io__ippool"
NETWORKS = "k8s.v1.cni.cncf.io__networks"
INJECT = "cni.spidernet.io/rdma-resource-inject"
DEFAULT_PODS = "/api/v1/namespaces/default/pods"


def test_the_authority_is_in_a_secret_and_every_entry_trusts_it(cluster: Cluster) -> None:
    secret = cluster.client.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/orbweaver-webhook-ca")
    assert secret["data"].keys() == {"ca.crt", "ca.key"}
    for kind in ("validating", "mutating"):
        entries = cluster.configuration(kind)["webhooks"]
        assert {entry["clientConfig"]["caBundle"] for entry in entries} == {secret["data"]["ca.crt"]}
    assert base64.b64decode(secret["data"]["ca.crt"]).startswith(b"-----BEGIN CERTIFICATE-----")


def test_what_somebody_else_writes_over_the_authority_is_put_right_at_once(cluster: Cluster) -> None:
    for kind in ("validating", "mutating"):
        path = f"{REGISTRATION}/{kind}webhookconfigurations/orbweaver"
        before = cluster.client.get(path)
        for entry in before["webhooks"]:
            entry["clientConfig"].pop("caBundle")
        cluster.client.replace(path, before)

        def whole(kind: str = kind) -> bool:
            entries = cluster.configuration(kind)["webhooks"]
            return all(entry["clientConfig"].get("caBundle") for entry in entries)

        eventually(whole, "it is trusted again", within_s=10.0)
    eventually(
        lambda: "created" in cluster.told(pool("trusted", "10.252.0.0/24"), dry_run=True),
        "pools are judged",
        within_s=10.0,
    )


def test_a_pool_gets_its_defaults(cluster: Cluster) -> None:
    assert "created" in cluster.told(
        pool("defaults", "10.30.0.0/24", ips=["10.30.0.9", "10.30.0.5-10.30.0.8"])
    )
    stored = cluster.client.get(f"{OURS}/spiderippools/defaults")
    assert stored["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
    assert stored["metadata"]["labels"] == {"ipam.spidernet.io/ippool-cidr": "10-30-0-0-24"}
    assert stored["spec"] == {
        "ipVersion": 4,
        "subnet": "10.30.0.0/24",
        "ips": ["10.30.0.5-10.30.0.9"],
        "default": False,
        "disable": False,
    }


def test_what_only_the_webhook_sees_is_refused_with_every_cause(cluster: Cluster) -> None:
    cluster.apply(pool("taken", "10.31.0.0/24", ips=["10.31.0.10-10.31.0.20"]))
    clash = pool("clash", "10.31.0.0/24", ips=["10.31.0.20"], gateway="10.31.0.20")

    def refused() -> str:
        said = cluster.told(clash, dry_run=True)
        return said if "overlap with IPPool taken in IP ranges [10.31.0.20]" in said else ""

    said = eventually(refused, "the overlap is seen")
    assert "gateway conflicts with 'spec.ips'" in said
    with pytest.raises(ApiError) as info:
        cluster.client.create(f"{OURS}/spiderippools", clash)
    assert (info.value.status, info.value.reason) == (422, "Invalid")


def of_one_name(name: str) -> Json:
    marks = {"multus.spidernet.io/cr-name": "one-name"}
    meta = {"name": name, "namespace": "default", "annotations": marks}
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "metadata": meta,
        "spec": {},
    }


@pytest.mark.parametrize(
    ("path", "make", "said"),
    [
        ("spiderippools", lambda n: pool(n, "10.36.0.0/24", ips=["10.36.0.10"]), "overlap with IPPool same-"),
        (
            "spidersubnets",
            lambda n: {**pool(n, "10.37.0.0/24"), "kind": "SpiderSubnet"},
            "overlap with Subnet same-",
        ),
        (
            "namespaces/default/spidermultusconfigs",
            of_one_name,
            "is managed by SpiderMultusConfig default/same-",
        ),
    ],
)
def test_i00009_i00010_of_many_at_once_that_exclude_each_other_one_is_made(
    cluster: Cluster, path: str, make: Callable[[str], Json], said: str
) -> None:
    def create(i: int) -> bool:
        try:
            cluster.client.create(f"{OURS}/{path}", make(f"same-{i}"))
        except ApiError as error:
            assert said in str(error)
            return False
        return True

    with ThreadPoolExecutor(max_workers=20) as many:
        assert sum(many.map(create, range(100))) == 1


def test_a_terminating_pool_takes_no_changes_but_the_end(cluster: Cluster) -> None:
    cluster.apply(pool("leaving", "10.32.0.0/24"))
    path = f"{OURS}/spiderippools/leaving"
    cluster.client.patch(path, {"metadata": {"finalizers": ["spiderpool.spidernet.io", "example.com/hold"]}})
    cluster.client.delete(path)
    with pytest.raises(ApiError, match="cannot update a terminating IPPool") as info:
        cluster.client.patch(path, {"spec": {"disable": True}})
    assert info.value.status == 403
    cluster.client.patch(path, {"metadata": {"finalizers": None}})
    assert not cluster.client.exists(path)


def test_pods_before_their_pools_are_warned_of_and_made(cluster: Cluster) -> None:
    said = cluster.told(pod("early", **{IPPOOL: '{"ipv4":["later"]}'}))
    assert "Warning: metadata.annotations[ipam.spidernet.io/ippool]: SpiderIPPool later is not found" in said
    assert "pod/early created" in said


def test_networks_that_are_not_there_are_warned_of(cluster: Cluster) -> None:
    said = cluster.told(pod("netless", **{NETWORKS: "default/nowhere"}))
    assert (
        "Warning: metadata.annotations[k8s.v1.cni.cncf.io/networks]: SpiderMultusConfig default/nowhere of net1 is not found"
        in said
    )
    assert "pod/netless created" in said


def test_pods_that_can_never_start_are_refused(cluster: Cluster) -> None:
    for marks, sentence in (
        ({IPPOOL: "{"}, "ippool"),
        ({"ipam.spidernet.io__ippools": '[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0"}]'}, "duplicate interface eth0"),
        ({NETWORKS: "a@net1,b@net1"}, "duplicate interface net1"),
        ({NETWORKS: "a@eth0"}, "would be a second interface eth0"),
        ({"ipam.spidernet.io__default-route-nic": "net7"}, "podDefaultRouteNIC: net7 don't exist in pod"),
    ):  # fmt: skip
        with pytest.raises(ApiError) as info:
            cluster.client.create(DEFAULT_PODS, pod("never", **marks))
        assert info.value.status == 422 and sentence in str(info.value), marks


def test_a_full_pool_is_a_warning(cluster: Cluster) -> None:
    cluster.apply(pool("full", "10.33.0.0/24", ips=[]))
    body = pod("late", **{IPPOOL: '{"ipv4":["full"]}'})
    sentence = "all IP addresses used out for IPv4 of eth0: full (0 in all)"
    eventually(lambda: sentence in cluster.told(body, dry_run=True), "the full pool is seen")


def test_a_template_is_warned_of_where_it_is_written(cluster: Cluster) -> None:
    marks = {"ipam.spidernet.io/ippool": "{"}
    template = {
        "metadata": {"labels": {"a": "b"}, "annotations": marks},
        "spec": {"containers": [{"name": "c", "image": "pause"}]},
    }
    said = cluster.told(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "nightly", "namespace": "default"},
            "spec": {
                "schedule": "0 0 * * *",
                "jobTemplate": {
                    "spec": {"template": {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}}
                },
            },
        },
    )
    assert (
        "Warning: spec.template.metadata.annotations[ipam.spidernet.io/ippool]: its pods will not start"
        in said
    )
    assert "Warning: spec.jobTemplate.spec.template.metadata.annotations" in said
    assert "deployment.apps/web created" in said and "cronjob.batch/nightly created" in said


def test_pods_of_the_system_and_our_own_are_never_refused(cluster: Cluster) -> None:
    for namespace in ("kube-system", NAMESPACE):
        said = cluster.told(pod("anyway", namespace, **{IPPOOL: "{"}))
        assert "pod/anyway created" in said and "Warning" not in said


def test_pod_validation_follows_the_config_map(cluster: Cluster) -> None:
    body = pod("tolerated", **{IPPOOL: "{"})
    try:
        cluster.settings("podValidation: warn\n")
        said = eventually(
            lambda: "created" in (text := cluster.told(body, dry_run=True)) and text, "warn takes effect"
        )
        assert "Warning: metadata.annotations[ipam.spidernet.io/ippool]" in said
        cluster.settings("podValidation: 'off'\n")
        eventually(lambda: "Warning" not in cluster.told(body, dry_run=True), "off takes effect")
        assert "podValidation" in cluster.told(_conf("podValidation: sometimes\n"))
    finally:
        cluster.settings("podValidation: enforce\n")
        eventually(lambda: "created" not in cluster.told(body, dry_run=True), "enforce takes effect")


def _conf(text: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "spiderpool-conf", "namespace": "kube-system"},
        "data": {"conf.yml": text},
    }


def test_deletions_are_protected_when_the_settings_say_so(cluster: Cluster) -> None:
    def operations() -> list[str]:
        entries = {entry["name"]: entry for entry in cluster.configuration("validating")["webhooks"]}
        return entries["spiderippool.spiderpool.spidernet.io"]["rules"][0]["operations"]

    assert operations() == ["CREATE", "UPDATE"]
    try:
        cluster.settings("enableValidatingResourcesDeletedWebhook: true\n")
        eventually(lambda: operations() == ["CREATE", "UPDATE", "DELETE"], "deletions are judged")
    finally:
        cluster.settings("podValidation: enforce\n")
        eventually(lambda: operations() == ["CREATE", "UPDATE"], "deletions are free")


def rail(name: str, resource: str) -> Json:
    block = {"master": [name], "rdmaResourceName": resource, "ippools": {"ipv4": [f"{name}-v4"]}}
    return {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": "default", "annotations": {INJECT: "fabric"}},
        "spec": {"cniType": "macvlan", "macvlan": block},
    }


@pytest.fixture
def injecting(cluster: Cluster) -> Cluster:
    """Injection is on, and the group `fabric` has two rails."""
    cluster.settings("podResourceInject: {enabled: true}\n")
    cluster.apply(rail("rail1", "spidernet.io/r1"), rail("rail0", "spidernet.io/r0"))
    stored = cluster.client.get(f"{OURS}/namespaces/default/spidermultusconfigs/rail0")
    assert stored["metadata"]["labels"][INJECT] == "fabric"
    body = pod("probe", cni_spidernet_io="x")
    body["metadata"]["annotations"] = {INJECT: "fabric"}

    def injected() -> bool:
        made = cluster.client.request("POST", DEFAULT_PODS, body, query={"dryRun": "All"})
        return len(made["metadata"]["annotations"]) == 3

    eventually(injected, "pods are injected")
    return cluster


def test_h00001_networks_and_resources_are_injected(injecting: Cluster) -> None:
    body = pod("worker")
    body["metadata"]["annotations"] = {INJECT: "fabric"}
    made = injecting.client.create(DEFAULT_PODS, body)
    assert made["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "default/rail0,default/rail1"
    limits = {"spidernet.io/r0": "1", "spidernet.io/r1": "1"}
    assert made["spec"]["containers"][0]["resources"] == {"limits": limits, "requests": limits}
    assert made["metadata"]["annotations"]["orbweaver.io/traceparent"].startswith("00-")


def test_masters_and_slots_of_networks_that_pods_name(injecting: Cluster) -> None:
    """Parts B and C: the entry for pods with networks comes with the setting, and goes with it."""
    rules = "{masterNIC: {rules: [{}]}, subENI: {rules: [{resourceName: example.com/slot}]}}"
    injecting.settings(
        "podResourceInject: {enabled: true, namespacesExclude: [left-out]}\n"
        "iaasNetworkProvider: {serverUrl: 'http://provider.example.com'}\n"
        f"agent: {{networkResourcePlugin: {{enabled: true, resourceAdvertisement: {rules}}}}}\n"
    )
    vlan = rail("vlan0", "")
    vlan["metadata"].pop("annotations")
    vlan["spec"] = {"cniType": "vlan", "vlan": {"master": ["eth1"], "vlanMode": "auto"}}
    injecting.apply(vlan)
    injecting.client.create("/api/v1/namespaces", {"metadata": {"name": "left-out"}})
    wanted = {"spidernet.io/eth1-nic": "1", "example.com/slot": "2"}

    def made(namespace: str) -> Json:
        body = pod("slots", namespace, **{NETWORKS: "default/vlan0,default/vlan0"})
        path = f"/api/v1/namespaces/{namespace}/pods"
        return injecting.client.request("POST", path, body, query={"dryRun": "All"})["spec"]["containers"][0]

    eventually(
        lambda: made("default").get("resources") == {"limits": wanted, "requests": wanted},
        "masters and slots are injected",
    )
    for spared in ("left-out", "kube-system", NAMESPACE):
        assert not made(spared)["resources"], spared
    injecting.settings("podResourceInject: {enabled: true}\n")
    eventually(lambda: not made("default")["resources"], "without the setting nothing is")


def test_a_group_that_nobody_is_in_refuses_the_pod(injecting: Cluster) -> None:
    body = pod("lost")
    body["metadata"]["annotations"] = {INJECT: "elsewhere"}
    with pytest.raises(ApiError, match=f"no spidermultusconfigs with annotation: {INJECT}:elsewhere found"):
        injecting.client.create(DEFAULT_PODS, body)


def test_a_namespace_injects_into_all_its_pods(injecting: Cluster) -> None:
    client = injecting.client
    client.create("/api/v1/namespaces", {"metadata": {"name": "gpu", "annotations": {INJECT: "fabric"}}})

    def named() -> bool:
        entries = {entry["name"] for entry in injecting.configuration("mutating")["webhooks"]}
        return "pods-of-namespaces.spiderpool.spidernet.io" in entries

    eventually(named, "the namespace is in the configuration")

    def injected() -> bool:
        made = client.request("POST", "/api/v1/namespaces/gpu/pods", pod("w", "gpu"), query={"dryRun": "All"})
        return "k8s.v1.cni.cncf.io/networks" in made["metadata"]["annotations"]

    eventually(injected, "its pods are injected")
    client.delete("/api/v1/namespaces/gpu")
    injecting.settings("podValidation: enforce\n")
    eventually(lambda: not named(), "without injection the entry is gone")


def test_a_person_may_take_an_entry_out(cluster: Cluster) -> None:
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/orbweaver"
    before = cluster.client.get(path)
    fewer = [entry for entry in before["webhooks"] if not entry["name"].startswith("cronjob")]
    fewer[0]["timeoutSeconds"] = 7
    cluster.client.replace(path, {**before, "webhooks": fewer})
    try:
        # a change of the settings makes every replica look
        cluster.settings("enableValidatingResourcesDeletedWebhook: true\n")
        after = eventually(
            lambda: "DELETE" in json.dumps(found := cluster.client.get(path)) and found, "it was looked at"
        )
        assert len(after["webhooks"]) == len(fewer)
        assert after["webhooks"][0]["timeoutSeconds"] == 7
    finally:
        cluster.settings("podValidation: enforce\n")
        cluster.register(cluster.ports[0])
        eventually(
            lambda: "created" in cluster.told(pool("again", "10.254.0.0/24"), dry_run=True),
            "all is as before",
        )


def test_without_us_pods_start_and_pools_go(cluster: Cluster) -> None:
    cluster.apply(pool("orphan", "10.34.0.0/24"))
    cluster.replicas[0].kill()
    try:
        assert "created" in cluster.told(pod("plain"))
        assert "created" in cluster.told(pod("ours", **{IPPOOL: "{"})), "validation is let pass"
        body = pod("rdma")
        body["metadata"]["annotations"] = {INJECT: "fabric"}
        with pytest.raises(ApiError, match="failed calling webhook"):
            cluster.client.create(DEFAULT_PODS, body)
        with pytest.raises(ApiError, match="failed calling webhook"):
            cluster.client.create(f"{OURS}/spiderippools", pool("unjudged", "10.35.0.0/24"))
        path = f"{OURS}/spiderippools/orphan"
        cluster.client.delete(path)
        cluster.client.patch(path, {"metadata": {"finalizers": None}})
        assert not cluster.client.exists(path)
    finally:
        cluster.replicas[0].start()
        eventually(
            lambda: "created" in cluster.told(pool("back", "10.253.0.0/24"), dry_run=True), "it serves again"
        )
