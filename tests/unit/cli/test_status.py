from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.cli.status import endpoints, with_pool_status, with_subnet_status
from shared.contracts.query import LeaseView

Json = dict[str, Any]


def pool(name: str, subnet: str, ips: list[str], **spec: Any) -> Json:
    return {"metadata": {"name": name}, "spec": {"subnet": subnet, "ips": ips, **spec}}


def lease(
    address: str, of_pool: str, pod: str = "prod/web-1", interface: str = "eth0", **more: Any
) -> LeaseView:
    namespace, _, name = pod.partition("/")
    return LeaseView(
        address=address,
        pool=of_pool,
        interface=interface,
        pod_namespace=namespace,
        pod_name=name,
        pod_uid=more.pop("pod_uid", "u1"),
        container_id="c1",
        node="n1",
        **more,
    )


V4 = pool(
    "v4",
    "10.6.0.0/24",
    ["10.6.0.10-10.6.0.19"],
    gateway="10.6.0.1",
    routes=[{"dst": "10.9.0.0/16", "gw": "10.6.0.2"}],
)
V6 = pool("v6", "fd00::/64", ["fd00::10-fd00::19"])


def test_a_pool_without_leases_has_no_allocated_ips_at_all() -> None:
    assert with_pool_status(V4, [])["status"] == {"allocatedIPCount": 0, "totalIPCount": 10}


def test_a_pools_leases_are_text_by_address() -> None:
    held = [
        lease("10.6.0.11", "v4"),
        lease("10.6.0.10", "v4", pod="prod/web-2", pod_uid="u2", state="detached"),
        lease("10.6.0.12", "v4", state="resting"),
        lease("fd00::10", "v6"),
    ]
    status = with_pool_status(V4, held)["status"]
    assert status["allocatedIPCount"] == 2
    assert json.loads(status["allocatedIPs"]) == {
        "10.6.0.10": {"pod": "prod/web-2", "podUid": "u2"},
        "10.6.0.11": {"pod": "prod/web-1", "podUid": "u1"},
    }


def test_a_container_without_a_pod_is_named_by_its_id() -> None:
    status = with_pool_status(V4, [lease("10.6.0.11", "v4", pod="", pod_uid="")])["status"]
    assert json.loads(status["allocatedIPs"]) == {"10.6.0.11": {"pod": "", "podUid": "c1"}}


def test_the_total_saturates_and_leaves_out_what_is_excluded() -> None:
    huge = pool(
        "huge", "fd12:3456:789a::/48", ["fd12:3456:789a:baba::1-fd12:3456:789a:ffff:ffff:ffff:ffff:ffff"]
    )
    assert with_pool_status(huge, [])["status"]["totalIPCount"] == 9223372036854775807
    holes = pool(
        "holes", "10.0.0.0/24", ["10.0.0.1-10.0.0.9"], excludeIPs=["10.0.0.2", "10.0.0.8-10.0.0.200"]
    )
    assert with_pool_status(holes, [])["status"]["totalIPCount"] == 6
    assert with_pool_status(pool("none", "10.0.0.0/24", []), [])["status"]["totalIPCount"] == 0


@given(st.sets(st.integers(1, 254)), st.sets(st.integers(1, 254)))
def test_the_total_counts_as_enumeration_does(included: set[int], excluded: set[int]) -> None:
    texts = [f"10.0.0.{n}" for n in sorted(included)]
    raw = pool("p", "10.0.0.0/24", texts, excludeIPs=[f"10.0.0.{n}" for n in excluded])
    assert with_pool_status(raw, [])["status"]["totalIPCount"] == len(included - excluded)


def test_a_subnet_lists_what_pools_of_its_cidr_hold() -> None:
    subnet = pool("s", "10.6.0.0/24", ["10.6.0.1-10.6.0.14"])
    other = pool("other", "10.7.0.0/24", ["10.7.0.1"])
    empty = pool("empty", "10.6.0.0/24", [])
    status = with_subnet_status(subnet, [V4, other, empty])["status"]
    assert json.loads(status["controlledIPPools"]) == {"v4": {"ips": ["10.6.0.10-10.6.0.14"]}}
    assert (status["allocatedIPCount"], status["totalIPCount"]) == (5, 14)
    assert "controlledIPPools" not in with_subnet_status(subnet, [other])["status"]


def test_an_endpoint_has_both_families_of_each_interface_eth0_first() -> None:
    routes = '[{"dst":"10.40.0.0/16","gw":"10.6.0.254"},{"dst":"10.41.0.0/16","gw":"192.168.0.1"}]'
    pod = {"metadata": {"annotations": {"ipam.spidernet.io/routes": routes}}}
    held = [
        lease("10.6.0.12", "v4", interface="net10"),
        lease("10.6.0.13", "v4", interface="net9"),
        lease("10.6.0.16", "v4", interface="data0"),
        lease("fd00::11", "v6", prefix_len=64),
        lease("10.6.0.11", "v4", gateway="10.6.0.1", prefix_len=24, clean_gateway=True),
        lease("10.6.0.14", "v4", interface="net9", state="resting"),
        lease("10.6.0.15", "v4", pod="", interface="eth0"),
    ]
    (endpoint,) = endpoints(held, {"v4": V4, "v6": V6}, {("prod", "web-1"): pod}, {})
    assert endpoint["metadata"]["ownerReferences"][0]["uid"] == "u1"
    current = endpoint["status"]["current"]
    assert (current["uid"], current["node"]) == ("u1", "n1")
    assert [detail["interface"] for detail in current["ips"]] == ["eth0", "data0", "net9", "net10"]
    assert current["ips"][0] == {
        "interface": "eth0",
        "ipv4": "10.6.0.11/24",
        "ipv4Pool": "v4",
        "ipv4Gateway": "10.6.0.1",
        "ipv6": "fd00::11/64",
        "ipv6Pool": "v6",
        "cleanGateway": True,
        "routes": [{"dst": "10.9.0.0/16", "gw": "10.6.0.2"}, {"dst": "10.40.0.0/16", "gw": "10.6.0.254"}],
    }
    assert endpoint["status"]["ownerControllerType"] == "Pod"
    assert endpoint["status"]["ownerControllerName"] == "web-1"


def owned_by(kind: str, name: str) -> Json:
    return {"metadata": {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}}


def test_an_endpoints_owner_is_the_top_controller() -> None:
    owners = {("ReplicaSet", "prod", "web-abc"): owned_by("Deployment", "web")}
    pods = {("prod", "web-1"): owned_by("ReplicaSet", "web-abc")}
    (endpoint,) = endpoints([lease("10.6.0.11", "v4")], {}, pods, owners)
    assert (endpoint["status"]["ownerControllerType"], endpoint["status"]["ownerControllerName"]) == (
        "Deployment",
        "web",
    )
    circle = {("ReplicaSet", "prod", "web-abc"): owned_by("ReplicaSet", "web-abc")}
    (endpoint,) = endpoints([lease("10.6.0.11", "v4")], {}, pods, circle)
    assert endpoint["status"]["ownerControllerName"] == "web-abc"


def test_a_stateful_pods_endpoint_outlives_the_pod() -> None:
    (endpoint,) = endpoints(
        [lease("10.6.0.11", "v4")], {}, {("prod", "web-1"): owned_by("StatefulSet", "web")}, {}
    )
    assert "ownerReferences" not in endpoint["metadata"]


def test_an_endpoint_has_an_identity_of_its_own() -> None:
    def meta(**more: Any) -> Json:
        (endpoint,) = endpoints([lease("10.6.0.11", "v4", generation=7, **more)], {}, {}, {})
        return dict(endpoint["metadata"])

    assert meta() == meta()
    assert meta()["resourceVersion"] == "7"
    assert len({meta()["uid"], meta(pod_uid="u2")["uid"], "u1"}) == 3


def test_an_interface_without_a_gateway_says_nothing_of_cleaning_it() -> None:
    (endpoint,) = endpoints([lease("10.6.0.11", "v4", clean_gateway=True)], {}, {}, {})
    (detail,) = endpoint["status"]["current"]["ips"]
    assert "cleanGateway" not in detail and "vlan" not in detail
