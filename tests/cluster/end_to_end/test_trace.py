"""The attach of a real pod as one picture, from the runtime's exec to the append, with the admission of the same pod."""

from __future__ import annotations

from shared.contracts.attach import AttachCompleted
from shared.contracts.span import SpanRecord
from shared.telemetry.waterfall import ADMISSION, linked, links, traces, waterfall
from tests.support.kube_cluster import await_true
from tests.support.kube_space import Space
from tests.support.kube_workload import IPPOOL, pod

WIDTH_COLUMNS = 120


def test_an_attach_and_the_admission_of_its_pod(space: Space) -> None:
    space.apply(pod("traced", {IPPOOL: {"ipv4": ["underlay-v4"], "ipv6": ["underlay-v6"]}}))
    space.await_pods(1)
    events = space.system.ask.events()
    [attached] = [
        event for event in events if isinstance(event, AttachCompleted) and event.pod_namespace == space.name
    ]

    def spans() -> list[SpanRecord]:
        return traces(space.system.ask.spans()).get(attached.trace_id, [])

    def admissions() -> list[str]:
        return [one.root for one in linked(spans(), space.system.ask.spans())]

    wanted = {"shim", "agent", "allocator"}
    await_true("spans of every part", lambda: wanted <= {span.service for span in spans()}, 20)
    await_true("the pod's admission", lambda: ADMISSION in admissions(), 20)
    picture = "\n".join(waterfall(spans(), WIDTH_COLUMNS) + links(spans(), space.system.ask.spans()))
    print(picture)
    for part in ("append", "link"):
        assert any(part in span.name for span in spans()), picture
