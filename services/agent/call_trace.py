"""The trace of one CNI call: continued from the runtime, else begun with the shim's process.

Owns names and attributes of spans, and the conversion of CLOCK_BOOTTIME to the spans' Unix time. Must not know what the
steps do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from opentelemetry.trace import SpanContext

from services.agent.call import Call
from services.agent.execute import StepTiming
from shared.clock import NodeClock
from shared.telemetry import (
    ActiveSpan,
    Telemetry,
    boottime_offset_ns,
    boottime_to_unix_ns,
    extract,
    shim_start_ns,
    trace_id_text,
)

_TRACED = ("ADD", "DEL", "CHECK", "GC")


class CallTrace:
    """`with CallTrace(…) as trace:`; `trace_id` is empty where nobody samples it. Times given to it are CLOCK_BOOTTIME.

    `waited_ns` is how long the call stood behind others (for its attachment's turn, for a thread), `asked` whether it came so far
    as to ask for addresses: the metrics tell both, sampled or not."""

    def __init__(
        self,
        telemetry: Telemetry,
        clock: NodeClock,
        call: Call,
        headers: Mapping[str, str],
        arrived_ns: int,
    ) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._offset_ns = boottime_offset_ns(clock)
        arrived_unix_ns = self._unix(arrived_ns)
        self.start_unix_ns = shim_start_ns(str(call.start_ns), arrived_unix_ns, self._offset_ns)
        self._span: ActiveSpan = telemetry.span(
            f"cni {call.verb}",
            extract(headers),
            root=call.verb in _TRACED,
            start_ns=self.start_unix_ns,
            attributes=_attributes(call),
            service="shim",
        )
        self.context: SpanContext = self._span.context
        self.trace_id = trace_id_text(self.context)
        self._steps: list[tuple[str, int, int, str]] = []
        self._arrived_unix_ns = arrived_unix_ns
        self.waited_ns = 0
        self.asked = False

    def __enter__(self) -> Self:
        self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, traceback)
        if not self.trace_id:
            return
        # Only now, after the answer: recording costs some 10 µs a step.
        self._telemetry.record(
            "shim.start", self.context, self.start_unix_ns, self._arrived_unix_ns, service="shim"
        )
        for name, start_ns, end_ns, failed in self._steps:
            self._telemetry.record(name, self.context, self._unix(start_ns), self._unix(end_ns), error=failed)

    def step(self, name: str, start_ns: int, end_ns: int | None = None, error: str = "") -> None:
        self._steps.append((name, start_ns, self._clock.boottime_ns() if end_ns is None else end_ns, error))

    def kernel(self, steps: Iterable[StepTiming]) -> None:
        for step in steps:
            self.step(step.name, step.start_ns, step.end_ns, step.error)

    def child(self, name: str) -> ActiveSpan:
        return self._telemetry.span(name, self.context)

    def set(self, key: str, value: str | int) -> None:
        self._span.set(key, value)

    def fail(self, message: str) -> None:
        self._span.fail(message)

    def _unix(self, boottime_ns: int) -> int:
        return boottime_to_unix_ns(boottime_ns, self._offset_ns)


def _attributes(call: Call) -> dict[str, str]:
    attributes = {
        "cni.command": call.verb,
        "cni.plugin": call.name,
        "cni.container_id": call.container_id,
        "cni.ifname": call.ifname,
        "k8s.namespace.name": call.pod.namespace,
        "k8s.pod.name": call.pod.name,
        "k8s.pod.uid": call.pod.uid,
    }
    return {key: value for key, value in attributes.items() if value}
