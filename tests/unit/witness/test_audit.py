"""`shared.audit` sees each violation that is planted in what witnesses say, and nothing in a system that is well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.audit import Evidence, Up, judge
from shared.contracts.query import AttachmentView, LeaseView

LEASE = LeaseView(
    address="10.6.0.10",
    pool="v4",
    interface="eth0",
    pod_namespace="prod",
    pod_name="web-1",
    pod_uid="u1",
    container_id="c1",
    node="n1",
    generation=3,
)
SECOND = msgspec.structs.replace(LEASE, address="fd00::10", pool="v6")
ATTACHED = AttachmentView(
    container_id="c1",
    interface="eth0",
    state="completed",
    node="n1",
    pod_namespace="prod",
    pod_name="web-1",
    pod_uid="u1",
    addresses=("10.6.0.10/24", "fd00::10/64"),
    generation=3,
)
UP = Up(node="n1", netns="/n1/netns/1", address="10.6.0.10", container_id="c1", pod_uid="u1")
STRAY = Up(node="n1", netns="/n1/netns/9", address="10.6.0.10", container_id="")
ADOPTED = msgspec.structs.replace(LEASE, container_id="", generation=1, state="adopted")
WELL = Evidence(leases=(LEASE, SECOND), attachments={"n1": (ATTACHED,)}, up=(UP,))


def changed(one: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(one, **changes)


def kinds(**changes: Any) -> list[str]:
    found = judge(changed(WELL, **changes))
    assert all(one.sentence and one.settles for one in found)
    return [one.kind for one in found]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"leases": ()}, ["no lease"] * 3),
        ({"leases": (), "kept": frozenset({"10.6.0.10", "fd00::10"})}, []),
        ({"leases": (LEASE,)}, ["no lease"]),
        ({"attachments": {"n1": ()}, "up": ()}, ["not attached"] * 2),
        ({"attachments": {}, "up": ()}, []),
        ({"attachments": {"n1": (changed(ATTACHED, addresses=("10.6.0.10/24",)),)}}, ["not attached"]),
        ({"attachments": {"n1": (changed(ATTACHED, generation=4),)}}, ["ahead of the log"]),
        ({"attachments": {"n1": (changed(ATTACHED, generation=2),)}}, []),
        ({"attachments": {"n1": (changed(ATTACHED, differences=("eth0 is down",)),)}}, ["kernel differs"]),
        ({"up": (UP, changed(UP, netns="/n1/netns/2"))}, ["used twice"]),
        ({"up": (UP, changed(UP, address="10.6.0.99"))}, ["no journal"]),
        ({"attachments": {}, "up": (changed(UP, pod_uid="u2"),)}, ["no lease"]),
        # of no attachment of its namespace: a second user where an attachment has it too, else a pod whose journal was lost
        ({"up": (changed(STRAY, address="10.6.0.99"),)}, ["no journal"]),
        ({"up": (STRAY,)}, ["used twice", "no journal"]),
        ({"up": (STRAY, changed(STRAY, netns="/n1/netns/8"))}, ["used twice", "no journal", "no journal"]),
        ({"attachments": {"n1": ()}, "up": (STRAY,)}, ["not attached"] * 2 + ["no journal"]),
        (
            {
                "attachments": {
                    "n1": (ATTACHED, changed(ATTACHED, container_id="c9", pod_name="db-0", pod_uid="u9"))
                }
            },
            ["used twice"] * 2 + ["no lease"] * 2,
        ),
        # another plugin attached it before we came: no journal has it
        ({"leases": (ADOPTED,), "attachments": {"n1": ()}, "up": (STRAY,)}, []),
        (
            {
                "leases": (ADOPTED,),
                "attachments": {"n1": ()},
                "up": (STRAY, changed(STRAY, netns="/n1/netns/8")),
            },
            ["used twice"],
        ),
        (
            {"leases": (changed(ADOPTED, node="n2"),), "attachments": {"n1": ()}, "up": (STRAY,)},
            ["no journal"],
        ),
        # an older sandbox of the same pod, whose DEL is on its way
        ({"attachments": {"n1": (ATTACHED, changed(ATTACHED, container_id="c0", generation=1))}}, []),
        # a pod of the same name came after it
        (
            {"leases": (changed(LEASE, pod_uid="u2", container_id="c2", state="detached"), SECOND), "up": ()},
            ["no lease"],
        ),
    ],
)
def test_each_violation_is_seen_and_nothing_else(changes: dict[str, Any], expected: list[str]) -> None:
    assert kinds(**changes) == expected
