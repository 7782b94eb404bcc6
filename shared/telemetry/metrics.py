"""The metrics of each service: Spiderpool's documented names, so that its dashboards and alerts work, and our own orbweaver_*.

Owns names, labels and buckets. Must not know where a value comes from: services call, or give a function that is asked at
each scrape. Counters carry no unit and no `_total` here: the exporter adds `_total` once and would add a unit's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

SPIDERPOOL_BUCKETS_S: Sequence[float] = (0.1, 0.3, 0.5, 1, 3, 5, 7, 10, 15)
ATTACH_BUCKETS_S: Sequence[float] = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
APPEND_BUCKETS_S: Sequence[float] = (
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.5,
    1,
    5,
    10,
)

_FAILURE_CLASS: dict[str, str] = {
    "no_pool": "no_available_pool",
    "pool_unknown": "no_available_pool",
    "pool_exhausted": "ip_used_out",
    "try_later": "retries_exhausted",
    "not_available": "retries_exhausted",
    # The reference counts a caller's mistake as exhausted retries, and its alerts are tuned to that.
    "annotation_invalid": "retries_exhausted",
    "config_invalid": "retries_exhausted",
    "environment_invalid": "retries_exhausted",
    "invalid": "retries_exhausted",
    "pod_unknown": "retries_exhausted",
    "pod_dead": "retries_exhausted",
    "wrong_node": "retries_exhausted",
}

Gauges = Callable[[], Mapping[str, int]]
Value = Callable[[], float]


def failure_class(error: str) -> str:
    """The reference's class of one of our error names; what fits no other is `internal`."""
    return _FAILURE_CLASS.get(error, "internal")


def _gauge(meter: Meter, name: str, description: str, value: Value) -> None:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        yield Observation(value())

    meter.create_observable_gauge(name, [observe], description=description)


def _labelled_gauge(meter: Meter, name: str, description: str, label: str, values: Gauges) -> None:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for key, value in values().items():
            yield Observation(value, {label: key})

    meter.create_observable_gauge(name, [observe], description=description)


class _Counter:
    """A counter that is exposed as 0 before its first event, so that `rate()` sees that event."""

    def __init__(self, meter: Meter, name: str, description: str) -> None:
        self._counter = meter.create_counter(name, description=description)
        self._counter.add(0)

    def add(self, count: int = 1) -> None:
        self._counter.add(count)


class _Durations:
    """Average, maximum, minimum and latest since start as gauges, and a histogram."""

    def __init__(self, meter: Meter, prefix: str, suffix: str, what: str) -> None:
        self._count = 0
        self._sum_s = 0.0
        self._max_s = 0.0
        self._min_s = 0.0
        self._latest_s = 0.0
        gauges: dict[str, Value] = {
            "average": lambda: self._sum_s / self._count if self._count else 0.0,
            "max": lambda: self._max_s,
            "min": lambda: self._min_s,
            "latest": lambda: self._latest_s,
        }
        for word, value in gauges.items():
            _gauge(meter, f"{prefix}_{word}_{suffix}", f"{what}: {word} since start, seconds", value)
        self._histogram = meter.create_histogram(
            f"{prefix}_{suffix}",
            description=f"{what}, seconds",
            explicit_bucket_boundaries_advisory=SPIDERPOOL_BUCKETS_S,
        )

    def record(self, duration_s: float) -> None:
        self._count += 1
        self._sum_s += duration_s
        self._max_s = max(self._max_s, duration_s)
        self._min_s = duration_s if self._count == 1 else min(self._min_s, duration_s)
        self._latest_s = duration_s
        self._histogram.record(duration_s)


class _Requests:
    """The family of counters and durations that the reference has for allocation and again for release."""

    def __init__(self, meter: Meter, verb: str, classes: Sequence[str]) -> None:
        prefix = f"spiderpool_ipam_{verb}"
        self._all = _Counter(meter, f"{prefix}_counts", f"{verb} requests received")
        self._failed = _Counter(meter, f"{prefix}_failure_counts", f"{verb} requests that failed")
        # Nothing is locked optimistically here, so this stays 0; dashboards query it.
        _Counter(meter, f"{prefix}_update_ippool_conflict_counts", "conflicts on a pool's status")
        self._classes = {
            name: _Counter(meter, f"{prefix}_err_{name}_counts", f"{verb} requests that failed: {name}")
            for name in classes
        }
        self._durations = _Durations(meter, prefix, "duration_seconds", f"whole {verb} request")
        self._waits = _Durations(
            meter, prefix, "limit_duration_seconds", f"time a {verb} request waited for its turn"
        )

    def record(self, duration_s: float, error: str | None, waited_s: float) -> None:
        self._all.add()
        self._durations.record(duration_s)
        self._waits.record(waited_s)
        if error is not None:
            self._failed.add()
            self._classes.get(failure_class(error), self._classes["internal"]).add()


class _Refusals:
    def __init__(self, meter: Meter) -> None:
        self._counter = meter.create_counter(
            "orbweaver_messages_refused",
            description="Messages that are not of their subject's form, by subject family",
        )

    def refused(self, family: str) -> None:
        """`family` is the subject without its variable tokens, such as `orb.facts`: labels must stay few."""
        self._counter.add(1, {"family": family})


class AgentMetrics(_Refusals):
    """`attachments` and `unpublished` (releases not yet acknowledged) are asked at each scrape."""

    def __init__(self, meter: Meter, attachments: Value, unpublished: Value) -> None:
        super().__init__(meter)
        self._allocations = _Requests(
            meter, "allocation", ("internal", "no_available_pool", "retries_exhausted", "ip_used_out")
        )
        self._releases = _Requests(meter, "release", ("internal", "retries_exhausted"))
        self._calls = meter.create_histogram(
            "orbweaver_attach_duration_seconds",
            description="From the shim's exec to the agent's reply, by CNI verb and outcome, seconds",
            explicit_bucket_boundaries_advisory=ATTACH_BUCKETS_S,
        )
        _gauge(meter, "orbweaver_attachments", "Attachments in the journal", attachments)
        _gauge(meter, "orbweaver_releases_unpublished", "Releases that wait for the bus", unpublished)

    def allocation(self, duration_s: float, error: str | None, waited_s: float) -> None:
        """One ADD that asked for addresses; `error` is a name of shared.errors, None for success."""
        self._allocations.record(duration_s, error, waited_s)

    def release(self, duration_s: float, error: str | None, waited_s: float) -> None:
        self._releases.record(duration_s, error, waited_s)

    def call(self, verb: str, duration_s: float, error: str | None) -> None:
        """One CNI call, whatever its verb, answered."""
        self._calls.record(duration_s, {"verb": verb, "error": error or ""})


class AllocatorMetrics(_Refusals):
    """`leases_by_pool`, `leading` (1 or 0) and `queued` (requests that wait) are asked at each scrape."""

    def __init__(self, meter: Meter, leases_by_pool: Gauges, leading: Value, queued: Value) -> None:
        super().__init__(meter)
        self._appends = meter.create_histogram(
            "orbweaver_append_duration_seconds",
            description="One record appended to the lease log, seconds",
            explicit_bucket_boundaries_advisory=APPEND_BUCKETS_S,
        )
        self._decisions = meter.create_counter(
            "orbweaver_allocations", description="Allocate requests answered, by error"
        )
        self._events = meter.create_counter(
            "orbweaver_lease_events", description="Events appended to the lease log"
        )
        self._collected = _Counter(meter, "spiderpool_ip_gc_counts", "addresses collected")
        self._failed = _Counter(
            meter, "spiderpool_ip_gc_failure_counts", "attachments not detached when asked"
        )
        _labelled_gauge(meter, "orbweaver_leases", "Addresses that are held", "pool", leases_by_pool)
        _gauge(meter, "orbweaver_leading", "1 where this replica leads", leading)
        _gauge(meter, "orbweaver_requests_queued", "Allocate requests that wait for a decision", queued)

    def append(self, duration_s: float, events: int) -> None:
        """One record with that many events was acknowledged."""
        self._appends.record(duration_s)
        self._events.add(events)

    def collected(self, addresses: int) -> None:
        self._collected.add(addresses)

    def not_collected(self) -> None:
        """An agent that was asked to detach did not, or did not answer."""
        self._failed.add()

    def answered(self, error: str | None, count: int = 1) -> None:
        self._decisions.add(count, {"error": error or ""})


class ControllerMetrics(_Refusals):
    """`pools`, `subnets`, `objects` and `problems` are asked at each scrape."""

    def __init__(self, meter: Meter, pools: Value, subnets: Value, objects: Value, problems: Value) -> None:
        super().__init__(meter)
        _gauge(meter, "spiderpool_total_ippool_counts", "SpiderIPPools in force", pools)
        _gauge(meter, "spiderpool_total_subnet_counts", "SpiderSubnets in force", subnets)
        _gauge(meter, "orbweaver_objects", "Objects in force", objects)
        _gauge(
            meter,
            "orbweaver_source_problems",
            "Objects or files of the source that are not in force",
            problems,
        )


class KubernetesMetrics:
    """How the API server is read and written. `requests` by verb, `held` objects and `relists` by kind, and `failing` (1 where a
    kind's list or watch has no answer) are asked at each scrape."""

    def __init__(
        self, meter: Meter, requests: Gauges, held: Gauges, relists: Gauges, failing: Gauges
    ) -> None:
        self._writes = meter.create_counter(
            "orbweaver_kubernetes_writes",
            description="Objects written to the API server, by kind and outcome",
        )
        _labelled_gauge(
            meter,
            "orbweaver_kubernetes_requests",
            "Requests to the API server since start",
            "verb",
            requests,
        )
        _labelled_gauge(meter, "orbweaver_reflected_objects", "Objects held of the API server", "kind", held)
        _labelled_gauge(
            meter, "orbweaver_reflector_relists", "Full lists asked for since start", "kind", relists
        )
        _labelled_gauge(
            meter, "orbweaver_reflector_failing", "1 where a list or watch has no answer", "kind", failing
        )

    def wrote(self, kind: str, outcome: str) -> None:
        """`outcome` is done, gone, refused or away."""
        self._writes.add(1, {"kind": kind, "outcome": outcome})


class WebhookMetrics(_Refusals):
    def __init__(self, meter: Meter) -> None:
        super().__init__(meter)
        self._reviews = meter.create_histogram(
            "orbweaver_admission_duration_seconds",
            description="One AdmissionReview, by kind and verdict, seconds",
            explicit_bucket_boundaries_advisory=ATTACH_BUCKETS_S,
        )

    def reviewed(self, kind: str, allowed: bool, duration_s: float) -> None:
        self._reviews.record(duration_s, {"kind": kind, "allowed": "true" if allowed else "false"})


class RdmaMetrics(_Refusals):
    """`devices` is asked at each scrape."""

    def __init__(self, meter: Meter, devices: Value) -> None:
        super().__init__(meter)
        _gauge(meter, "orbweaver_rdma_devices", "RDMA devices of the node", devices)
