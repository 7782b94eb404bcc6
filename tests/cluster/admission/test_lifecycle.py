"""The life of our objects on a real API server: applied by one or by two, changed, mirrored, in use, deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.contracts.ipam import Allocated
from tests.cluster.admission.agent import attach, detach, reasons
from tests.cluster.admission.conftest import OURS, Cluster, Json, eventually, pod, pool
from tests.support.kube_client import ApiError

V2BETA1 = "spiderpool.spidernet.io/v2beta1"


def ours(kind: str, name: str, spec: Json, **meta: Any) -> Json:
    return {"apiVersion": V2BETA1, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


MERGED = {"ips": ["10.80.0.20", "10.80.0.10-10.80.0.12", "10.80.0.13"]}
APPLIED: dict[str, Json] = {
    "spiderippools/applied": ours("SpiderIPPool", "applied", {"subnet": "10.80.0.0/24", "gateway": "10.80.0.1", **MERGED}),
    "spidersubnets/applied": ours("SpiderSubnet", "applied", {"subnet": "10.81.0.0/24", "ips": ["10.81.0.3", "10.81.0.2"]}),
    "spiderreservedips/applied": ours("SpiderReservedIP", "applied", {"ips": ["10.82.0.9", "10.82.0.8"]}),
    "spidercoordinators/applied": ours("SpiderCoordinator", "applied", {"podCIDRType": "none", "hijackCIDR": ["10.0.0.1"]}),
    "namespaces/default/spidermultusconfigs/applied": ours(
        "SpiderMultusConfig",
        "applied",
        {"cniType": "macvlan", "macvlan": {"master": ["eth0"]}, "coordinator": {"hijackCIDR": ["10.0.0.1"]}},
        namespace="default",
    ),
    "namespaces/default/spidermultusconfigs/empty": ours("SpiderMultusConfig", "empty", {}, namespace="default"),
}  # fmt: skip


def server_side(cluster: Cluster, body: Json, manager: str, *more: str) -> str:
    arguments = ("apply", "--server-side", f"--field-manager={manager}", *more, "-f", "-")
    return cluster.server.kubectl(*arguments, stdin=json.dumps(body), check=False)


def settled(cluster: Cluster, path: str) -> None:
    """Returns once the controller has written what it writes."""
    seen = [cluster.client.get(f"{OURS}/{path}")["metadata"]["resourceVersion"]]

    def quiet() -> bool:
        seen.append(cluster.client.get(f"{OURS}/{path}")["metadata"]["resourceVersion"])
        return len(seen) > 12 and len(set(seen[-12:])) == 1

    eventually(quiet, "nobody writes any more")


@pytest.mark.parametrize("path", APPLIED)
def test_who_applies_again_changes_nothing(cluster: Cluster, path: str) -> None:
    """What admission adds or brings to another form is not the applier's to fight for."""
    body = APPLIED[path]
    for _ in range(2):  # at the second the API server may put its list of managers into another order
        assert "serverside-applied" in server_side(cluster, body, "one")
        settled(cluster, path)
    before = cluster.client.get(f"{OURS}/{path}")["metadata"]
    assert "serverside-applied" in server_side(cluster, body, "one")
    after = cluster.client.get(f"{OURS}/{path}")["metadata"]
    assert after["resourceVersion"] == before["resourceVersion"]
    assert "serverside-applied" in server_side(cluster, body, "two", "--force-conflicts")
    assert cluster.client.get(f"{OURS}/{path}")["metadata"]["generation"] == before["generation"]


def test_two_who_apply_one_pool_each_keep_what_they_said(cluster: Cluster) -> None:
    path = f"{OURS}/spiderippools/shared"
    base = ours("SpiderIPPool", "shared", {"subnet": "10.85.0.0/24", "ips": ["10.85.0.10"]})
    server_side(cluster, base, "one")
    server_side(
        cluster,
        ours("SpiderIPPool", "shared", {"subnet": "10.85.0.0/24", "disable": True}),
        "two",
        "--force-conflicts",
    )
    assert cluster.client.get(path)["spec"] == {
        **base["spec"],
        "ipVersion": 4,
        "disable": True,
        "default": False,
    }
    said = server_side(
        cluster, ours("SpiderIPPool", "shared", {"subnet": "10.85.0.0/24", "ips": ["10.85.0.11"]}), "two"
    )
    assert 'conflict with "one": .spec.ips' in said


def test_a_status_that_somebody_writes_is_put_right(cluster: Cluster) -> None:
    cluster.apply(pool("mirrored", "10.86.0.0/24", ips=["10.86.0.10-10.86.0.19"]))
    path = f"{OURS}/spiderippools/mirrored"
    right = {"allocatedIPCount": 0, "totalIPCount": 10}
    eventually(lambda: cluster.client.get(path).get("status") == right, "it is counted")
    patch = {"status": {"allocatedIPs": "no JSON", "allocatedIPCount": 5, "totalIPCount": 1}}
    cluster.server.kubectl(
        "patch", "sp", "mirrored", "--subresource=status", "--type=merge", "-p", json.dumps(patch)
    )
    # what a status says, admission does not believe where it can ask
    cluster.client.patch(path, {"spec": {"ips": ["10.86.0.10-10.86.0.18"]}})
    eventually(
        lambda: cluster.client.get(path)["status"] == {"allocatedIPCount": 0, "totalIPCount": 9},
        "it is put right",
        within_s=90,
    )
    patch = {"status": {"allocatedIPCount": -1}}
    said = cluster.server.kubectl(
        "patch",
        "sp",
        "mirrored",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps(patch),
        check=False,
    )
    assert "should be greater than or equal to 0" in said


@pytest.mark.parametrize(
    ("path", "patch", "said"),
    [
        ("spiderippools/applied", {"spec": {"ipVersion": 6}}, "is not changeable"),
        ("spiderippools/applied", {"spec": {"subnet": "10.80.0.0/23"}}, "is not changeable"),
        ("spiderippools/applied", {"spec": {"subnet": "10.80.0.0/25"}}, "is not changeable"),
        ("spiderippools/applied", {"spec": {"subnet": None}}, "spec.subnet: Required"),
        ("spiderippools/applied", {"spec": None}, "spec.subnet: Required"),
        ("spidersubnets/applied", {"spec": {"ipVersion": 6}}, "is not changeable"),
        ("spidersubnets/applied", {"spec": {"subnet": "10.81.0.0/23"}}, "is not changeable"),
        ("spiderreservedips/applied", {"spec": {"ipVersion": 6}}, "is not changeable"),
        ("spidercoordinators/applied", {"spec": {"podCIDRType": None}}, "spec.podCIDRType: Required"),
        (
            "namespaces/default/spidermultusconfigs/applied",
            {"metadata": {"annotations": {"multus.spidernet.io/cr-name": "x"}}},
            "cannot be added to an existing object",
        ),
        (
            "namespaces/default/spidermultusconfigs/applied",
            {"spec": {"cniType": "ipvlan"}},
            "no ipvlan specified",
        ),
    ],
)
def test_what_may_not_change(cluster: Cluster, path: str, patch: Json, said: str) -> None:
    server_side(cluster, APPLIED[path], "one", "--force-conflicts")
    with pytest.raises(ApiError, match=said) as info:
        cluster.client.patch(f"{OURS}/{path}", patch)
    assert info.value.status == 422


def test_what_is_taken_away_and_ours_comes_back(cluster: Cluster) -> None:
    path = f"{OURS}/spiderippools/applied"
    server_side(cluster, APPLIED["spiderippools/applied"], "one", "--force-conflicts")
    for patch in (
        {"metadata": {"finalizers": None}},
        {"metadata": {"labels": None}},
        {"spec": {"ipVersion": None}},
    ):
        cluster.client.patch(path, patch)
        stored = cluster.client.get(path)
        assert stored["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
        assert stored["metadata"]["labels"] == {"ipam.spidernet.io/ippool-cidr": "10-80-0-0-24"}
        assert stored["spec"]["ipVersion"] == 4


def given(cluster: Cluster, label: str, *pools: str) -> Allocated:
    """One container attached, as soon as the pool is known."""

    def once() -> Allocated | None:
        found = attach(cluster, label, 1, *pools)[0]
        return found if isinstance(found, Allocated) else None

    return eventually(once, f"{label} is attached")


def test_a_pool_in_use_keeps_what_is_used_and_goes_with_the_last(cluster: Cluster) -> None:
    """S00003, D00004, D00005, with addresses that the allocator gave a moment ago: the status need not know of them yet."""
    path = f"{OURS}/spiderippools/used"
    cluster.apply(pool("used", "10.84.0.0/24", ips=["10.84.0.10-10.84.0.12"]))
    cluster.client.create("/api/v1/namespaces/default/pods", {**pod("asks"), "metadata": {"name": "asks"}})
    one, two = given(cluster, "one", "used"), given(cluster, "two", "used")
    assert [grant.address for grant in (*one.grants, *two.grants)] == ["10.84.0.10/24", "10.84.0.11/24"]
    for spec, field in (
        ({"ips": ["10.84.0.10"]}, "spec.ips"),
        ({"ips": []}, "spec.ips"),
        ({"excludeIPs": ["10.84.0.11"]}, "spec.excludeIPs"),
        ({"excludeIPs": ["10.84.0.10-10.84.0.11"], "gateway": "10.84.0.10"}, "spec.excludeIPs"),
    ):
        with pytest.raises(
            ApiError, match=f"{field}: remove an IP address 10.84.0.1[01] that is being used by Pod"
        ):
            cluster.client.patch(path, {"spec": spec})
    cluster.client.patch(path, {"spec": {"ips": ["10.84.0.10-10.84.0.11"], "disable": True}})
    eventually(lambda: reasons(cluster, "used") == {"used": "is disabled"}, "the change is known")
    assert attach(cluster, "three", 1, "used") == ["no_pool"]
    cluster.client.patch(path, {"spec": {"ips": ["10.84.0.10-10.84.0.19"], "disable": False}})
    given(cluster, "four", "used")

    cluster.client.delete(path)
    with pytest.raises(ApiError, match="cannot update a terminating IPPool") as info:
        cluster.client.patch(path, {"metadata": {"annotations": {"a": "b"}}})
    assert info.value.status == 403
    with pytest.raises(ApiError, match="IPPool used already exists") as info:
        cluster.client.create(f"{OURS}/spiderippools", pool("used", "10.84.0.0/24"))
    assert info.value.status == 409
    with pytest.raises(ApiError, match="overlap with IPPool used in IP ranges"):
        cluster.client.create(f"{OURS}/spiderippools", pool("other", "10.84.0.0/24", ips=["10.84.0.19"]))
    eventually(lambda: reasons(cluster, "used") == {"used": "is terminating"}, "that it goes is known")
    assert attach(cluster, "five", 1, "used") == ["no_pool"]
    four = attach(cluster, "four", 1, "used")[0]
    assert isinstance(four, Allocated), "who has an address of it keeps it"
    detach(cluster, "one", one)
    detach(cluster, "two", two)
    eventually(lambda: cluster.client.get(path)["status"].get("allocatedIPCount") == 1, "two are released")
    assert cluster.client.exists(path), "one is still used"
    detach(cluster, "four", four)
    eventually(lambda: not cluster.client.exists(path), "it goes with the last")
