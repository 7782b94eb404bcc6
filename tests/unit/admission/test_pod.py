"""Pods, Namespaces and spiderpool-conf: annotations that cannot work are refused, what may still come is a warning."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.admission.objects import Json, conf, create, fields, multus, pod, pool, said, update

IPPOOL, IPPOOLS = "ipam.spidernet.io__ippool", "ipam.spidernet.io__ippools"
SUBNET = "ipam.spidernet.io__subnet"
NETWORKS = "k8s.v1.cni.cncf.io__networks"
V6 = pool("six", subnet="fd00::/64", ips=["fd00::1"])


def namespace(**annotations: str) -> Json:
    named = {key.replace("__", "/"): text for key, text in annotations.items()}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "annotations": named}}


def warned(verdict: Any) -> str:
    return "\n".join(one.message for one in verdict.warnings)


def test_a_pod_without_annotations_is_none_of_our_business() -> None:
    verdict = create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "x"}})
    assert verdict.valid
    assert not verdict.warnings


@pytest.mark.parametrize(
    "annotations",
    [
        {IPPOOL: "{"},
        {IPPOOL: '{"npv4":["a"]}'},
        {IPPOOLS: '[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0","ipv4":["b"]}]'},
        {IPPOOLS: "[]"},
        {"ipam.spidernet.io__routes": '[{"dst":"10.0.0.0/8","gw":"fd00::1"}]'},
        {"ipam.spidernet.io__default-route-nic": "a b"},
        {"ipam.spidernet.io__ippool-ip-number": "++1"},
        {"ipam.spidernet.io__ippool-reclaim": "maybe"},
        {NETWORKS: "a@b@c"},
        {"v1.multus-cni.io__default-network": "a,b"},
        {SUBNET: "{}"},
    ],
)
def test_a00003_annotations_that_cannot_work(annotations: dict[str, str]) -> None:
    verdict = create(pod(**annotations))
    (key,) = annotations
    assert fields(verdict)[0] == f"metadata.annotations[{key.replace('__', '/')}]"
    assert verdict.status == 422


def test_all_annotations_are_told_at_once() -> None:
    verdict = create(pod(**{IPPOOL: "{", NETWORKS: "A", "ipam.spidernet.io__routes": "x"}))
    assert len(verdict.errors) == 3


def test_a00003_an_unknown_pool_may_still_come() -> None:
    verdict = create(pod(**{IPPOOL: '{"ipv4":["later","no-*"]}'}))
    assert verdict.valid
    assert "SpiderIPPool later is not found" in warned(verdict)
    assert "the pattern 'no-*' matches no IPv4 IPPool now" in warned(verdict)


def test_a_pool_of_the_wrong_family_never_fits() -> None:
    verdict = create(pod(**{IPPOOLS: '[{"interface":"eth0","ipv4":["six"]}]'}), V6)
    assert "all IPv4 IPPools [six] of eth0 filtered out: six is an IPv6 pool" in said(verdict)
    assert create(pod(**{IPPOOL: '{"ipv6":["six"],"ipv4":["a"]}'}), V6, pool()).valid


def test_a_family_that_is_off_is_a_warning() -> None:
    verdict = create(pod(**{IPPOOL: '{"ipv6":["six"]}'}), V6, conf("enableIPv6: false"))
    assert verdict.valid
    assert "IPv6 is disabled" in warned(verdict)


def test_i00023_a_bare_pod_with_a_subnet() -> None:
    verdict = create(pod(owner=False, **{SUBNET: '{"ipv4":["s"]}'}))
    assert "SpiderSubnet feature doesn't support no-controller pod" in said(verdict)
    assert verdict.status == 422
    assert create(pod(**{SUBNET: '{"ipv4":["s"]}'})).valid


def test_i00024_a_subnet_without_auto_pools() -> None:
    verdict = create(pod(**{SUBNET: '{"ipv4":["s"]}'}), conf("enableAutoPoolForApplication: false"))
    assert "annotation when Auto-Pool feature is disabled" in said(verdict)


def test_a_subnet_where_the_feature_is_off_is_ignored() -> None:
    assert create(pod(owner=False, **{SUBNET: "{"}), conf("enableSpiderSubnet: false")).valid


def test_a00013_interfaces_that_are_not_listed_are_warned_of() -> None:
    listed = '[{"interface":"eth0","ipv4":["a"]}]'
    verdict = create(pod(**{IPPOOLS: listed, NETWORKS: "macvlan"}), pool())
    assert verdict.valid
    assert "interface net1 must be specified" in warned(verdict)


def test_others_may_touch_a_pod_whose_annotations_are_wrong_already() -> None:
    before = pod(**{IPPOOL: "{"})
    after = {**before, "metadata": {**before["metadata"], "labels": {"a": "b"}}}
    assert update(before, after).valid
    worse = pod(**{IPPOOL: "[", "more": "x"})
    assert not update(before, worse).valid


def test_labels_and_keys_are_checked_as_the_api_server_does() -> None:
    raw = pod(**{"bad key": "x"})
    raw["metadata"]["labels"] = {"a": "not ok!"}
    assert fields(create(raw)) == ["metadata.labels[a]", "metadata.annotations[bad key]"]


def test_e00007_very_long_annotations() -> None:
    long = pod(note="x" * 260_000, **{IPPOOL: '{"ipv4":["a"]}'})
    assert create(long, pool()).valid
    longer = pod(note="x" * 263_000)
    assert fields(create(longer)) == ["metadata.annotations"]


def test_a00007_defaults_of_a_namespace() -> None:
    key = "ipam.spidernet.io__default-ipv4-ippool"
    assert create(namespace(**{key: '["a","red-*"]'}), pool(), pool("red-1", subnet="10.7.0.0/16")).valid
    assert fields(create(namespace(**{key: "a"}))) == [
        "metadata.annotations[ipam.spidernet.io/default-ipv4-ippool]"
    ]
    assert "is an IPv6 pool" in said(create(namespace(**{key: '["six"]'}), V6))
    assert "is not found" in warned(create(namespace(**{key: '["later"]'})))
    assert create(namespace(**{key: ""})).valid


def test_mistakes_of_a_template_are_warned_of_where_they_stand() -> None:
    template = {
        "metadata": {
            "annotations": {"ipam.spidernet.io/ippool": "{", "ipam.spidernet.io/subnet": '{"ipv4":["s"]}'}
        }
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "x"},
        "spec": {"replicas": 2, "template": template},
    }
    verdict = create(deployment)
    assert verdict.valid
    assert [one.field for one in verdict.warnings] == [
        "spec.template.metadata.annotations[ipam.spidernet.io/ippool]"
    ]
    assert "its pods will not start: the value is not JSON" in warned(verdict)
    cron = {
        **deployment,
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }
    assert [one.field for one in create(cron).warnings] == [
        "spec.jobTemplate.spec.template.metadata.annotations[ipam.spidernet.io/ippool]"
    ]
    assert not update(deployment, {**deployment, "spec": {"replicas": 3, "template": template}}).warnings


def test_the_settings() -> None:
    assert create(conf("enableIPv4: false")).valid
    verdict = create(conf("enableIPv4: 5\nenableGatewayDetection: x"))
    assert fields(verdict) == ["data[conf.yml].enableIPv4", "data[conf.yml].enableGatewayDetection"]
    other = conf("enableIPv4: 5")
    other["metadata"]["name"] = "something-else"
    assert create(other).valid


def test_kinds_without_rules_are_accepted() -> None:
    assert create({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "t"}}).valid
    endpoint = {
        "apiVersion": "spiderpool.spidernet.io/v2beta1",
        "kind": "SpiderEndpoint",
        "metadata": {"name": "e"},
    }
    assert create(endpoint).valid


def test_a_misspelt_annotation_is_warned_of_once_it_comes() -> None:
    misspelt = pod(**{"ipam.spidernet.io__ipool": "{}"})
    assert "did you mean ipam.spidernet.io/ippool?" in warned(create(misspelt))
    assert not update(misspelt, misspelt).warnings


def test_a_deployment_with_annotations_beside_its_template_is_warned_of() -> None:
    template = {"metadata": {"annotations": {"ipam.spidernet.io/ipool": "{}"}}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "x", "annotations": {"ipam.spidernet.io/ippool": "{}"}},
        "spec": {"template": template},
    }
    said = {one.field: one.message for one in create(deployment).warnings}
    assert (
        "write it into spec.template.metadata.annotations"
        in said["metadata.annotations[ipam.spidernet.io/ippool]"]
    )
    assert "did you mean" in said["spec.template.metadata.annotations[ipam.spidernet.io/ipool]"]


def test_a_misspelt_annotation_of_a_network_is_warned_of() -> None:
    said = create(multus(annotations={"multus.spidernet.io/cni-versoin": "1.0.0"}, cniType="custom"))
    assert said.valid and "did you mean multus.spidernet.io/cni-version?" in warned(said)


def test_an_annotation_that_is_no_text_is_refused_where_no_api_server_does_it() -> None:
    raw = pod()
    raw["metadata"]["annotations"] = {"ipam.spidernet.io/ippool-ip-number": 3}
    verdict = create(raw)
    assert fields(verdict) == ["metadata.annotations[ipam.spidernet.io/ippool-ip-number]"]
