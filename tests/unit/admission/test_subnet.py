"""SpiderSubnet: defaults, and one test for each rule."""

from __future__ import annotations

import json

from shared.admission.rules import mutate
from shared.admission.view import Objects
from tests.unit.admission.objects import conf, create, delete, fields, having, pool, said, subnet, update


def test_defaults() -> None:
    out = mutate(subnet(cidr="fd00:172:18::/64", ips=["fd00:172:18::2", "fd00:172:18::1"]), Objects())
    assert out["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
    assert out["metadata"]["labels"] == {"ipam.spidernet.io/subnet-cidr": "fd00-172-18---64"}
    assert out["spec"]["ipVersion"] == 6
    assert out["spec"]["ips"] == ["fd00:172:18::1-fd00:172:18::2"]


def test_i00001_create_update_delete() -> None:
    raw = subnet(ips=["10.6.0.10-10.6.0.20"], excludeIPs=["10.6.0.15"], gateway="10.6.0.1")
    assert create(raw).valid
    assert update(raw, subnet(ips=["10.6.0.10-10.6.0.30"], gateway="10.6.0.2")).valid
    assert delete(raw).valid


def test_a_name_that_is_taken() -> None:
    assert create(subnet(), subnet(cidr="10.7.0.0/16")).status == 409


def test_i00009_of_two_subnets_with_one_cidr_the_second_is_refused() -> None:
    verdict = create(subnet("t"), subnet())
    assert said(verdict) == "overlap with Subnet s which 'spec.subnet' is 10.6.0.0/16"
    assert not create(subnet("t", cidr="10.0.0.0/8"), subnet()).valid
    assert create(subnet("t", cidr="10.7.0.0/16"), subnet()).valid


def test_pools_that_are_there_already() -> None:
    inside = pool(ips=["10.6.0.10-10.6.0.12"])
    assert create(subnet(ips=["10.6.0.0-10.6.0.99"]), inside).valid
    verdict = create(subnet(ips=["10.6.0.11-10.6.0.99"]), inside)
    assert fields(verdict) == ["spec.ips"]
    assert "SpiderIPPool 'a' owns some IP addresses that SpiderSubnet 's' can't control: [10.6.0.10]" in said(
        verdict
    )
    other = create(subnet(), pool(subnet="10.6.1.0/24"))
    assert "overlap with SpiderIPPool 'a' resource 'spec.subnet' 10.6.1.0/24" in said(other)


def test_the_rules_of_ranges_gateway_and_routes_hold() -> None:
    raw = subnet(ips=["10.6.0.9", "10.7.0.1"], gateway="10.6.0.9", routes=[{"dst": "::/0", "gw": "10.6.0.1"}])
    assert fields(create(raw)) == ["spec.ips[1]", "spec.gateway", "spec.routes[0].dst"]
    assert "unformatted subnet" in said(create(subnet(cidr="10.6.0.1/16")))
    assert "IPv4 is disabled" in said(create(subnet(), conf("enableIPv4: false")))


def test_version_and_cidr_are_not_changeable() -> None:
    assert fields(update(subnet(), subnet(cidr="10.7.0.0/16"))) == ["spec.subnet"]


def test_i00002_a_used_range_may_not_leave() -> None:
    before = subnet(ips=["10.6.0.10-10.6.0.20"])
    before["status"] = {"controlledIPPools": json.dumps({"a": {"ips": ["10.6.0.10-10.6.0.11"]}})}
    verdict = update(before, subnet(ips=["10.6.0.11-10.6.0.20"]))
    assert "remove some IP ranges [10.6.0.10] that is being used by IPPool a" in said(verdict)
    assert verdict.errors[0].code == "Forbidden"
    assert update(before, subnet(ips=["10.6.0.10-10.6.0.11"])).valid
    assert update(before, subnet(ips=["10.6.0.10-10.6.0.30"])).valid


def test_pools_under_the_subnet_count_before_the_status_says_so() -> None:
    before = subnet(ips=["10.6.0.10-10.6.0.20"])
    view = having(before)
    child = mutate(pool(ips=["10.6.0.10"]), view)
    assert not update(before, subnet(ips=["10.6.0.11-10.6.0.20"]), child).valid


def test_i00004_excluding_a_used_address_is_refused() -> None:
    before = subnet(ips=["10.6.0.10-10.6.0.20"])
    before["status"] = {"controlledIPPools": json.dumps({"a": {"ips": ["10.6.0.10"]}})}
    assert not update(before, subnet(ips=["10.6.0.10-10.6.0.20"], excludeIPs=["10.6.0.10"])).valid


def test_i00022_a_bogus_status_stops_nothing() -> None:
    for text in ("{", "[]", json.dumps({"a": {"ips": ["x"]}}), json.dumps({"a": 5})):
        before = subnet(ips=["10.6.0.10-10.6.0.20"])
        before["status"] = {"controlledIPPools": text}
        assert update(before, subnet(ips=["10.6.0.11"])).valid


def test_a_terminating_subnet_only_loses_its_finalizer() -> None:
    before, after = subnet(), subnet(ips=["10.6.0.9"])
    for raw in (before, after):
        raw["metadata"] |= {
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["spiderpool.spidernet.io"],
        }
    assert said(update(before, after)) == "cannot update a terminating Subnet"
    assert update(before, after).status == 403
    after["metadata"]["finalizers"] = []
    assert update(before, after).valid


def test_deletion_when_protected() -> None:
    raw = subnet()
    raw["status"] = {"allocatedIPCount": 3}
    verdict = delete(raw, conf("enableValidatingResourcesDeletedWebhook: true"))
    assert verdict.status == 403
    assert said(verdict) == "cannot delete an Subnet with allocated IPs(3)"
