"""Status of pools and subnets and SpiderEndpoints: the format, the cut of long lists, whose controller it is."""

from __future__ import annotations

import json

import msgspec
import pytest

from services.controller.mirror import Holder, MirroredLease
from services.controller.status import COUNT_MAX, endpoint, pool_status, subnet_status, top_controller
from shared.manifests.ipam import IPPoolSpec, RangeSpec, Route
from shared.manifests.meta import ObjectMeta, OwnerReference
from shared.manifests.workload import Pod

SPEC = IPPoolSpec(subnet="10.6.0.0/16", ips=("10.6.0.10-10.6.0.19",), exclude_ips=("10.6.0.12",))


def holder(*leases: MirroredLease, uid: str = "u1") -> Holder:
    return Holder("shop", "web", uid, "n1", leases)


def lease(interface: str, address: str, pool: str = "rack", prefix_len: int = 16) -> MirroredLease:
    return MirroredLease(interface, address, pool, prefix_len, False)


def owned(kind: str, name: str, **labels: str) -> Pod:
    owner = OwnerReference(api_version="apps/v1", kind=kind, name=name, uid="o", controller=True)
    return Pod(metadata=ObjectMeta(name="web", namespace="shop", owner_references=(owner,), labels=labels))


def test_an_empty_pool_has_no_list_and_counts() -> None:
    assert pool_status(SPEC, {}, 5000) == {"allocatedIPCount": 0, "totalIPCount": 9}


def test_records_are_text_in_spiderpools_form() -> None:
    status = pool_status(SPEC, {"10.6.0.11": holder()}, 5000)
    assert json.loads(status["allocatedIPs"]) == {"10.6.0.11": {"pod": "shop/web", "podUid": "u1"}}
    assert status["allocatedIPCount"] == 1
    assert "allocatedIPsOmitted" not in status


def test_a_long_list_is_cut_and_says_so_and_the_count_is_exact() -> None:
    held = {f"10.6.{number >> 8}.{number & 255}": holder() for number in range(6001)}
    status = pool_status(SPEC, held, 5000)
    records = list(json.loads(status["allocatedIPs"]))
    assert len(records) == 5000
    assert records[:3] == ["10.6.0.0", "10.6.0.1", "10.6.0.2"], "the lowest, by number"
    assert status["allocatedIPCount"] == 6001
    assert status["allocatedIPsOmitted"] == 1001


def test_a_count_that_fits_no_int64_is_the_largest() -> None:
    spec = IPPoolSpec(
        subnet="fd12:3456:789a::/48",
        ips=("fd12:3456:789a:baba::1-fd12:3456:789a:ffff:ffff:ffff:ffff:ffff",),
    )
    assert pool_status(spec, {}, 5000)["totalIPCount"] == COUNT_MAX == 9223372036854775807


def test_a_pool_that_cannot_be_read_counts_nothing() -> None:
    assert pool_status(IPPoolSpec(subnet="nonsense"), {}, 5000)["totalIPCount"] == 0


def test_a_subnet_lists_the_pools_that_have_some_of_it() -> None:
    subnet = RangeSpec(subnet="10.6.0.0/16", ips=("10.6.0.1-10.6.0.100",))
    other = IPPoolSpec(subnet="10.6.0.0/16", ips=("10.6.0.90-10.6.0.120",))
    away = IPPoolSpec(subnet="10.6.0.0/16", ips=("10.6.9.1",))
    status = subnet_status(subnet, {"b": other, "a": SPEC, "c": away})
    assert json.loads(status["controlledIPPools"]) == {
        "a": {"ips": ["10.6.0.10-10.6.0.11", "10.6.0.13-10.6.0.19"]},
        "b": {"ips": ["10.6.0.90-10.6.0.100"]},
    }
    assert (status["allocatedIPCount"], status["totalIPCount"]) == (20, 100)


def test_an_endpoint_has_its_interfaces_in_order_with_both_families() -> None:
    pools = {
        "rack": IPPoolSpec(
            subnet="10.6.0.0/16", gateway="10.6.0.1", routes=(Route(dst="10.9.0.0/16", gw="10.6.0.2"),)
        ),
        "six": IPPoolSpec(subnet="fd00::/64"),
    }
    pod = Pod(
        metadata=ObjectMeta(
            annotations={"ipam.spidernet.io/routes": '[{"dst":"10.8.0.0/16","gw":"10.6.0.3"}]'}
        )
    )
    leases = (lease("net10", "10.6.0.30"), lease("net2", "10.6.0.20"), lease("eth0", "10.6.0.10"))
    made = endpoint("shop", "web", holder(*leases, lease("eth0", "fd00::5", "six", 64)), pod, pools)
    ips = json.loads(msgspec.json.encode(made))["status"]["current"]["ips"]
    assert [one["interface"] for one in ips] == ["eth0", "net2", "net10"]
    assert ips[0] == {
        "interface": "eth0",
        "ipv4": "10.6.0.10/16",
        "ipv4Pool": "rack",
        "ipv4Gateway": "10.6.0.1",
        "ipv6": "fd00::5/64",
        "ipv6Pool": "six",
        "cleanGateway": False,
        "routes": [{"dst": "10.9.0.0/16", "gw": "10.6.0.2"}, {"dst": "10.8.0.0/16", "gw": "10.6.0.3"}],
        "vlan": 0,
    }
    assert (
        "cleanGateway"
        not in endpoint("shop", "web", holder(lease("eth0", "fd00::5", "six")), pod, pools)["status"][
            "current"
        ]["ips"][0]
    ), "only where the pool has a gateway"


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (None, ("Pod", "web")),
        (Pod(), ("Pod", "web")),
        (owned("ReplicaSet", "web-abc12", **{"pod-template-hash": "abc12"}), ("Deployment", "web")),
        (owned("ReplicaSet", "web-abc12"), ("ReplicaSet", "web-abc12")),
        (owned("Job", "nightly-29381760"), ("CronJob", "nightly")),
        (owned("Job", "once"), ("Job", "once")),
        (owned("StatefulSet", "db"), ("StatefulSet", "db")),
        (owned("CloneSet", "x"), ("CloneSet", "x")),
    ],
)
def test_the_top_controller(pod: Pod | None, expected: tuple[str, str]) -> None:
    assert top_controller(pod, "web") == expected


def test_the_endpoint_of_a_stateful_set_outlives_its_pod() -> None:
    plain = endpoint("shop", "web", holder(lease("eth0", "10.6.0.10")), Pod(), {})
    kept = endpoint("shop", "web", holder(lease("eth0", "10.6.0.10")), owned("StatefulSet", "db"), {})
    assert plain["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1"}
    ]
    assert "ownerReferences" not in kept["metadata"]
    assert msgspec.json.encode(kept)
