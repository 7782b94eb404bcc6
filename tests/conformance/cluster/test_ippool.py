"""Pools, and addresses set apart, as objects of the API server."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.case import case
from tests.conformance.cluster.stage import OURS, Json, Stage, drawing, until
from tests.support.kube_workload import GROUP, pod, pool

PATH = f"{OURS}/spiderippools"
_MOST = 2**63 - 1
_MANY = 60
_MANY_S = 60.0


@case("D00001")
def test_an_address_of_another_pool(stage: Stage) -> None:
    first = stage.pool(5)
    subnet = stage.pool_object(first)["spec"]["subnet"]
    start = subnet.rpartition(".")[0]
    second = f"{stage.name}-second"
    stage.own(second)
    stage.system.apply(pool(second, subnet, f"{start}.200", default=False))
    stage.await_known(second)
    overlap = pool(second, subnet, f"{start}.200", f"{start}.102-{start}.103", default=False)
    assert f"overlap with IPPool {first}" in stage.refused(overlap)


@case("D00003")
@pytest.mark.parametrize("family", [4, 6])
def test_gateway_and_routes(stage: Stage, family: int) -> None:
    name = stage.pool(family=family)
    spec = stage.pool_object(name)["spec"]
    subnet, ips = spec["subnet"], spec["ips"]
    inside = subnet.replace(".0/24", ".1") if family == 4 else subnet.replace("::/64", "::1")
    outside, dst = ("172.29.0.1", "10.7.0.0/16") if family == 4 else ("fd00:29::1", "fd07::/32")
    other = "fd07::/32" if family == 4 else "10.7.0.0/16"

    def refused(**changes: Any) -> str:
        return stage.refused(pool(name, subnet, *ips, default=False, **changes))

    assert "gateway" in refused(gateway=outside)
    assert "routes" in refused(routes=[{"dst": dst, "gw": outside}])
    assert "routes" in refused(routes=[{"dst": other, "gw": inside}])
    assert "routes" in refused(routes=[{"dst": "nowhere", "gw": inside}])
    stage.client.patch(
        f"{PATH}/{name}", {"spec": {"gateway": inside, "routes": [{"dst": dst, "gw": inside}]}}
    )


@case("D00004")
def test_a_pool_in_use_stays(stage: Stage) -> None:
    name = stage.pool()
    """It is terminating: nobody else draws from it, and who has an address keeps it."""
    stage.space.apply(pod("web", drawing(name)), pod("other", drawing(name)))
    stage.space.await_pods(2)
    stage.sane(name)
    stage.client.delete(f"{PATH}/{name}")
    assert stage.pool_object(name)["metadata"]["deletionTimestamp"]
    stage.space.kubectl("delete", "pod", "other", "--timeout=120s")
    stage.space.apply(pod("late", drawing(name)))
    until(
        lambda: any("is terminating" in text for text in stage.space.sandbox_failures()),
        "the late one is told",
    )
    stage.space.kubectl("delete", "pod", "late", "--timeout=120s")
    stage.sane(name)
    stage.space.kubectl("delete", "pod", "web", "--timeout=120s")
    until(lambda: not stage.exists_pool(name), "it goes once nothing is held")


@case("D00004")
def test_a_pool_in_use_is_kept_where_the_settings_say_so(stage: Stage) -> None:
    name = stage.pool()
    stage.space.apply(pod("web", drawing(name)))
    stage.space.await_pods(1)
    stage.settings({"enableValidatingResourcesDeletedWebhook": True})

    def said() -> str:
        return stage.cluster.server.kubectl("delete", "spiderippool", name, "--dry-run=server", check=False)

    until(lambda: "cannot delete an IPPool with allocated IPs(1)" in said(), "its deletion is refused")
    stage.space.kubectl("delete", "pod", "web", "--timeout=120s")
    stage.await_empty(name)
    until(lambda: "deleted" in said(), "its deletion is not refused any more")


@case("D00006")
def test_many_pools(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    pools = [
        pool(f"{stage.name}-{n}", f"10.{200 + n // 250}.{n % 250}.0/24", f"10.{200 + n // 250}.{n % 250}.9")
        for n in range(_MANY)
    ]
    names = [one["metadata"]["name"] for one in pools]
    for name in names:
        stage.own(name)

    def create(one: Json) -> None:
        stage.client.create(PATH, one)

    began_s = time.monotonic()
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(create, pools))
        created_s = time.monotonic() - began_s
        for name in names:
            stage.await_known(name)
        list(workers.map(stage.client.delete, [f"{PATH}/{name}" for name in names]))
        until(lambda: not any(map(stage.exists_pool, names)), "all are gone", _MANY_S)
    with capsys.disabled():
        print(f"\n{_MANY} pools created in {created_s:.1f} s, gone after {time.monotonic() - began_s:.1f} s")


@case("D00007")
def test_create_read_update_delete(stage: Stage) -> None:
    name = stage.pool(4)
    assert stage.pool_object(name)["status"]["totalIPCount"] == 4
    start = stage.pool_object(name)["spec"]["subnet"].rpartition(".")[0]
    stage.client.patch(f"{PATH}/{name}", {"spec": {"ips": [f"{start}.100-{start}.109"]}})
    until(lambda: stage.pool_object(name)["status"]["totalIPCount"] == 10, "ten addresses")
    assert stage.pool_object(name)["spec"]["ips"] == [f"{start}.100-{start}.109"]
    stage.client.delete(f"{PATH}/{name}")
    until(lambda: not stage.exists_pool(name), "it is gone")


@case("D00017")
def test_a_huge_pool(stage: Stage) -> None:
    name = f"{stage.name}-huge"
    stage.own(name)
    stage.system.apply(pool(name, "fd77::/16", "fd77::1-fd77:ffff:ffff::", default=False))
    stage.await_known(name)
    assert stage.pool_object(name)["status"]["totalIPCount"] == _MOST
    stage.space.apply(pod("web", drawing(name, families=(6,))))
    stage.space.await_pods(1)
    stage.sane(name)


@case("S00001")
def test_a_reserved_address(stage: Stage) -> None:
    name = stage.pool(1)
    address = stage.pool_object(name)["spec"]["ips"][0].partition("-")[0]
    reserved = {
        "apiVersion": GROUP,
        "kind": "SpiderReservedIP",
        "metadata": {"name": stage.name},
        "spec": {"ips": [address]},
    }
    stage.system.apply(reserved)
    try:
        stage.space.apply(pod("web", drawing(name)))
        until(
            lambda: any("all IP addresses used out" in text for text in stage.space.sandbox_failures()),
            "the pod is told why it waits",
        )
        assert stage.records(name) == {}
    finally:
        stage.client.delete(f"{OURS}/spiderreservedips/{stage.name}")
    stage.space.await_pods(1)
    assert stage.sane(name) == {"web": {address}}


@case("S00003")
def test_excluding_an_address_in_use(stage: Stage) -> None:
    name = stage.pool(5)
    stage.space.apply(pod("web", drawing(name)))
    stage.space.await_pods(1)
    ((address,),) = stage.sane(name).values()
    spec = stage.pool_object(name)["spec"]
    wanted = pool(name, spec["subnet"], *spec["ips"], default=False, excludeIPs=[address])
    assert address in stage.refused(wanted)
