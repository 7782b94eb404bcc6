"""What the command tells of pods that are attached through the installed shim."""

from __future__ import annotations

import json
import time

from tests.integration.cli.stage import Attached, Stage

LEASE_MEMBERS = {
    "address",
    "pool",
    "interface",
    "podNamespace",
    "podName",
    "podUID",
    "containerID",
    "node",
    "generation",
    "state",
}


def bare(addresses: tuple[str, ...]) -> set[str]:
    return {address.partition("/")[0] for address in addresses}


def test_leases_and_attachments_tell_the_same(stage: Stage, attached: list[Attached]) -> None:
    leases = stage.items("leases")
    assert all(set(lease) == LEASE_MEMBERS for lease in leases)
    assert {lease["address"] for lease in leases} == bare(attached[0].addresses) | bare(attached[1].addresses)
    mine = stage.items("leases", "--pod", "prod/web-1")
    assert {lease["address"] for lease in mine} == bare(attached[0].addresses)
    for lease in mine:
        assert (lease["podUID"], lease["containerID"]) == ("web-1-uid", attached[0].container_id)
        assert (lease["interface"], lease["node"], lease["state"]) == ("eth0", "n1", "held")
    assert {lease["pool"] for lease in stage.items("leases", "--pool", "v6")} == {"v6"}
    assert {lease["podName"] for lease in stage.items("leases", "--node", "n2")} == {"web-2"}
    (attachment,) = stage.items("attachments", "--pod", "prod/web-1")
    assert attachment["containerID"] == attached[0].container_id
    assert (attachment["state"], attachment["node"], attachment["parent"]) == ("completed", "n1", "eth1")
    assert set(attachment["addresses"]) == set(attached[0].addresses)


def test_a_pools_status_and_the_endpoint_follow_the_leases(stage: Stage, attached: list[Attached]) -> None:
    status = stage.json("get", "sp", "v4")["status"]
    assert (status["allocatedIPCount"], status["totalIPCount"]) == (2, 9)
    by_address = json.loads(status["allocatedIPs"])
    assert {entry["pod"]: entry["podUid"] for entry in by_address.values()} == {
        "prod/web-1": "web-1-uid",
        "prod/web-2": "web-2-uid",
    }
    endpoint = stage.json("get", "spiderendpoints", "web-1", "-n", "prod")
    current = endpoint["status"]["current"]
    assert (current["uid"], current["node"]) == ("web-1-uid", "n1")
    (detail,) = current["ips"]
    assert {detail["ipv4"], detail["ipv6"]} == set(attached[0].addresses)
    assert (detail["interface"], detail["ipv4Pool"], detail["ipv6Pool"]) == ("eth0", "v4", "v6")
    assert detail["ipv4Gateway"] == "172.28.0.1"
    assert stage.done("get", "se").splitlines()[1].split()[:3] == ["prod", "web-1", "eth0"]


def test_who_names_the_holder_and_the_trace_of_its_attach(stage: Stage, attached: list[Attached]) -> None:
    address = next(iter(bare(attached[0].addresses)))
    answer = stage.json("who", address)
    (holder,) = answer["holders"]
    assert (holder["podName"], holder["node"], holder["containerID"]) == (
        "web-1",
        "n1",
        attached[0].container_id,
    )
    assert holder["since"]
    assert f"{address} is held by pod prod/web-1 on node n1" in stage.done("who", address)
    picture = stage.done("get", "traces", holder["traceID"]).splitlines()
    assert picture[0].startswith(f"trace {holder['traceID']}: ")
    spans = stage.json("get", "traces", holder["traceID"])["spans"]
    assert {"shim", "agent", "allocator"} <= {span["service"] for span in spans}
    known = {span["span_id"] for span in spans}
    assert [span["name"] for span in spans if span.get("parent_id", "") not in known] == [spans[0]["name"]]
    assert all(len(line) <= 120 for line in picture)
    assert holder["traceID"] in {trace["traceID"] for trace in stage.items("traces")}


def test_who_tells_why_nobody_has_an_address(stage: Stage) -> None:
    for address, said in (
        ("172.28.0.1", "the gateway of pool v4"),
        ("172.28.0.15", "excluded from pool v4"),
        ("172.28.0.19", "reserved by SpiderReservedIP printers"),
        ("172.28.0.18", "free in pool v4"),
        ("172.28.0.200", "in none of its ranges"),
        ("192.0.2.1", "in no pool"),
        ("FD00:28:0::0018", "fd00:28::18 is free in pool v6"),
    ):
        done = stage.cli("who", address)
        assert done.returncode == 1
        assert said in done.stdout


def test_events_are_kept_and_filtered(stage: Stage, attached: list[Attached]) -> None:
    events = stage.items("events", "--pod", "prod/web-2")
    mine = [event for event in events if event["containerID"] == attached[1].container_id]
    assert [(event["reason"], event["type"]) for event in mine] == [("Attached", "Normal")]
    assert mine[0]["involvedObject"]["uid"] == "web-2-uid"
    assert set(mine[0]["addresses"]) == set(attached[1].addresses)
    assert {event["node"] for event in stage.items("events", "--node", "n1")} == {"n1"}


def test_explain_tells_pools_leases_and_events(stage: Stage, attached: list[Attached]) -> None:
    explained = stage.json("explain", "pod", "prod/web-1")
    assert {verdict["pool"] for verdict in explained["verdicts"]} == {"v4", "v6"}
    assert {lease["address"] for lease in explained["leases"]} == bare(attached[0].addresses)
    assert explained["events"][-1]["reason"] == "Attached"
    assert "prod/web-1" in stage.done("explain", "pod", "prod/web-1").splitlines()[0]


def test_doctor_finds_nothing_while_pods_are_attached(stage: Stage, attached: list[Attached]) -> None:
    examined = stage.json("doctor")
    assert examined["ok"]
    witnesses = next(f for f in examined["findings"] if f["check"] == "witnesses")
    assert witnesses["sentence"] == f"log and nodes agree on {sum(len(a.addresses) for a in attached)} leases"


def test_doctor_knows_that_all_sandboxes_of_a_pod_share_its_leases(stage: Stage) -> None:
    first = stage.attach("web-1")
    second = stage.attach("web-1")
    stage.detach(second)
    try:
        deadline = time.monotonic() + 10
        while {lease["state"] for lease in stage.items("leases")} != {"detached"}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        examined = stage.json("doctor")
        assert [f["sentence"] for f in examined["findings"] if f["check"] == "witnesses"] == [
            "log and nodes agree on 0 leases"
        ]
        counted = next(f for f in examined["findings"] if f["check"] == "agents")
        assert counted["sentence"].startswith("1 attachments ")
    finally:
        stage.detach(first)
        for one in (first, second):
            stage.lab.remove(one.netns)


def test_doctor_sees_a_link_that_somebody_deleted(stage: Stage, attached: list[Attached]) -> None:
    stage.lab.run(attached[0].netns, "ip", "link", "delete", "eth0")
    examined = stage.cli("doctor", "-o", "json")
    assert examined.returncode == 1
    failed = [f for f in json.loads(examined.stdout)["findings"] if f["result"] == "fail"]
    assert [f["check"] for f in failed] == ["agents"]
    assert "prod/web-1 on n1" in failed[0]["sentence"]
    assert failed[0]["way_out"]


def test_doctor_sees_addresses_that_somebody_gave_by_hand(stage: Stage, attached: list[Attached]) -> None:
    used = next(a for a in attached[0].addresses if "." in a)
    by_hand = stage.lab.pod()
    try:
        stage.lab.run(
            stage.lab.nodes[0],
            *(
                "ip",
                "link",
                "add",
                "link",
                "eth1",
                "name",
                "eth0",
                "netns",
                by_hand,
                "type",
                "macvlan",
                "mode",
                "bridge",
            ),
        )
        # in a pool and free, in a pool and leased, and in none
        for address in ("172.28.0.18/24", used, "172.28.0.99/24"):
            stage.lab.run(by_hand, "ip", "address", "add", address, "dev", "eth0")
        examined = stage.cli("doctor", "-o", "json")
        assert examined.returncode == 1
        failed = [f for f in json.loads(examined.stdout)["findings"] if f["result"] == "fail"]
        place = f"{stage.lab.path(by_hand)} of n1"
        assert sorted((f["check"], f["sentence"]) for f in failed) == [
            ("duplicates", f"{used.partition('/')[0]} is used by {place} and prod/web-1/eth0"),
            *sorted(
                ("witnesses", f"{address} is up in {place}, and in no journal of the node")
                for address in ("172.28.0.18", used.partition("/")[0])
            ),
        ]
        assert all(f["way_out"] for f in failed)
    finally:
        stage.lab.remove(by_hand)


def test_after_the_detach_nothing_is_told(stage: Stage) -> None:
    one = stage.attach("web-1")
    (stage.manifests / "web-1.yaml").rename(stage.manifests / "web-1.away")
    try:
        stage.done("sync")
        stage.detach(one)
        deadline = time.monotonic() + 10
        while stage.items("leases", "--pod", "prod/web-1") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stage.items("leases", "--pod", "prod/web-1") == []
        assert stage.items("attachments", "--pod", "prod/web-1") == []
        assert stage.items("events", "--pod", "prod/web-1")[-1]["reason"] == "Detached"
    finally:
        (stage.manifests / "web-1.away").rename(stage.manifests / "web-1.yaml")
        stage.done("sync")
        stage.lab.remove(one.netns)


def test_traces_are_chosen_by_pod_and_node(stage: Stage, attached: list[Attached]) -> None:
    def of(*words: str) -> set[str]:
        return {one["traceID"] for one in stage.items("traces", *words)}

    deadline = time.monotonic() + 10
    while not of("--pod", "prod/web-1") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert of("--pod", "prod/web-1") and of("--pod", "prod/web-1") <= of("--node", "n1")
    assert not of("--pod", "prod/web-1") & of("--node", "n2")
