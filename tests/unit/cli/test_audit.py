from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.cli.audit import CHECKS, SHOWN_MAX, Finding, Seen, Service, audit, lasting
from shared.contracts.facts import SourceProblem
from shared.contracts.ipam import Mark
from shared.contracts.query import AllocatorView, AttachmentView, LeaseView, StrayView

LEADER = AllocatorView(
    replica="allocator-0",
    term=3,
    mark=Mark(incarnation="ab" * 8, sequence=7, digest=""),
    leases=1,
    facts_sequence=9,
    facts_synced=True,
)
LEASE = LeaseView(
    address="10.6.0.10",
    pool="v4",
    interface="eth0",
    pod_namespace="prod",
    pod_name="web-1",
    pod_uid="u1",
    container_id="c1",
    node="n1",
    generation=1,
)
ATTACHMENT = AttachmentView(
    container_id="c1",
    interface="eth0",
    state="completed",
    node="n1",
    pod_namespace="prod",
    pod_name="web-1",
    addresses=("10.6.0.10/24",),
)
STRAY = StrayView(address="10.6.0.19/24", interface="eth0", netns="/run/netns/x")
POOL = {
    "metadata": {"name": "v4"},
    "spec": {"ipVersion": 4, "subnet": "10.6.0.0/24", "ips": ["10.6.0.10-10.6.0.19"]},
}
WELL = Seen(
    services=(Service(instance="controller-0", log="/s/log/controller-0.log"),),
    leader=LEADER,
    log_before=7,
    log_after=7,
    leases=(LEASE,),
    attachments={"n1": (ATTACHMENT,)},
    pools=(POOL,),
    gc_thresh3={"ipv4": 1024},
)


def wrong(**changes: Any) -> list[tuple[str, str]]:
    found = audit(msgspec.structs.replace(WELL, **changes))
    assert all(f.way_out for f in found if f.result != "ok")
    return [(f.check, f.result) for f in found if f.result != "ok"]


def replaced(one: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(one, **changes)


def test_a_system_that_is_well_has_one_ok_for_each_check() -> None:
    found = audit(WELL)
    assert [f.result for f in found] == ["ok"] * len(CHECKS)
    assert all(f.sentence and not f.way_out for f in found)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"services": (Service(instance="webhook-0", reason="does not run"),)}, [("services", "fail")]),
        ({"services": (Service(instance="webhook-0", restarts=2),)}, [("services", "warn")]),
        ({"leader": None}, [("leader", "fail")]),
        ({"leader": replaced(LEADER, facts_synced=False)}, [("leader", "warn")]),
        ({"leader": replaced(LEADER, violations=("10.6.0.10 is held twice", "x"))}, [("leader", "fail")] * 2),
        ({"log_before": 3, "log_after": 6}, [("lease log", "fail")]),
        ({"log_before": 9, "log_after": 12}, [("lease log", "warn")]),
        # The log grew between the two looks at it, and the leader answered in between.
        ({"log_before": 5, "log_after": 9}, []),
        ({"attachments": {"n1": None}}, [("agents", "fail")]),
        (
            {"attachments": {"n1": (replaced(ATTACHMENT, differences=("eth0 is down",)),)}},
            [("agents", "fail")],
        ),
        ({"leases": ()}, [("witnesses", "fail")]),
        (
            {"leases": (replaced(LEASE, pod_name="web-0", container_id="c0"),)},
            [("witnesses", "fail")] * 2 + [("duplicates", "fail")],
        ),
        # A second sandbox of the pod came and went: the lease tells of that one.
        ({"leases": (replaced(LEASE, state="detached", container_id="c2"),)}, []),
        ({"leases": (replaced(LEASE, state="detached"),)}, []),
        ({"attachments": {"n1": ()}}, [("witnesses", "fail")]),
        ({"attachments": {"n1": ()}, "leases": (replaced(LEASE, state="ahead"),)}, []),
        ({"attachments": {"n1": ()}, "leases": (replaced(LEASE, state="resting"),)}, []),
        ({"leases": (), "attachments": {"n1": (replaced(ATTACHMENT, state="intent"),)}}, []),
        (
            {
                "leases": (LEASE, replaced(LEASE, container_id="c2", pod_name="web-2", node="n2")),
                "attachments": {"n1": (ATTACHMENT,), "n2": None},
            },
            [("agents", "fail"), ("duplicates", "fail")],
        ),
        ({"strays": {"n1": (STRAY,)}}, [("witnesses", "fail")]),
        (
            {"strays": {"n1": (replaced(STRAY, address="10.6.0.10/24"),)}},
            [("witnesses", "fail"), ("duplicates", "fail")],
        ),
        # given by another IPAM before we came
        (
            {
                "leases": (LEASE, replaced(LEASE, address="10.6.0.19", container_id="", state="adopted")),
                "strays": {"n1": (STRAY,)},
            },
            [],
        ),
        # in no pool: a router's, or another plugin's
        (
            {
                "strays": {
                    "n1": (replaced(STRAY, address="10.6.0.99/24"), replaced(STRAY, address="fd00::12/64"))
                }
            },
            [],
        ),
        ({"pools": ({**POOL, "spec": {**POOL["spec"], "ips": ["10.6.0.10"]}},)}, [("pools", "fail")]),
        (
            {
                "leases": tuple(replaced(LEASE, address=f"10.6.0.{n}", state="ahead") for n in range(10, 18)),
                "attachments": {"n1": ()},
            },
            [("pools", "warn")],
        ),
        (
            {
                "problems": (
                    SourceProblem(
                        file="a.yaml", line=3, object="SpiderIPPool/v4", field="spec.ips[0]", message="no"
                    ),
                )
            },
            [("files", "fail")],
        ),
        ({"gc_thresh3": {"ipv4": 4, "ipv6": 4}}, [("neighbours", "warn")]),
    ],
)
def test_what_is_wrong_is_found_by_its_check(
    changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert wrong(**changes) == expected


def test_a_check_lists_no_more_than_a_person_reads() -> None:
    leases = tuple(replaced(LEASE, address=f"10.7.{n}.1", container_id=f"x{n}") for n in range(50))
    found = [
        f for f in audit(msgspec.structs.replace(WELL, leases=(LEASE, *leases))) if f.check == "witnesses"
    ]
    assert len(found) == SHOWN_MAX + 1
    assert found[-1].sentence == "and 40 more"


def finding(check: str, result: Any, sentence: str) -> Finding:
    return Finding(check=check, result=result, sentence=sentence)


def test_only_what_two_looks_saw_is_told() -> None:
    first = [finding("a", "fail", "in flight"), finding("b", "fail", "stays"), finding("c", "ok", "well")]
    second = [
        finding("a", "fail", "another in flight"),
        finding("b", "fail", "stays"),
        finding("c", "ok", "still well"),
    ]
    told = lasting(first, second)
    assert [(f.check, f.result) for f in told] == [("b", "fail"), ("c", "ok"), ("a", "ok")]


def test_what_is_under_way_is_not_counted_as_compared() -> None:
    coming = replaced(ATTACHMENT, container_id="c9", state="intent", addresses=())
    found = audit(msgspec.structs.replace(WELL, attachments={"n1": (ATTACHMENT, coming)}))
    (told,) = [f.sentence for f in found if f.check == "agents"]
    assert told.startswith("1 attachments on 1 nodes")
