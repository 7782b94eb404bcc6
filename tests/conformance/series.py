"""The series that dashboards and alerts of Spiderpool ask for, and how a scrape is read.

Must not know who serves them.
"""

from __future__ import annotations

from collections.abc import Iterable

FAILURES = {
    "allocation": ("internal", "no_available_pool", "retries_exhausted", "ip_used_out"),
    "release": ("internal", "retries_exhausted"),
}
_TIMES = [
    *(
        f"{word}_{kind}duration_seconds"
        for kind in ("", "limit_")
        for word in ("average", "max", "min", "latest")
    ),
    *(f"{kind}duration_seconds_{part}" for kind in ("", "limit_") for part in ("bucket", "count", "sum")),
]
AGENT = [
    f"spiderpool_ipam_{verb}_{name}"
    for verb, classes in FAILURES.items()
    for name in (
        *("counts_total", "failure_counts_total", "update_ippool_conflict_counts_total"),
        *(f"err_{one}_counts_total" for one in classes),
        *_TIMES,
    )
]
CONTROLLER = ["spiderpool_total_ippool_counts", "spiderpool_total_subnet_counts"]
COLLECTOR = ["spiderpool_ip_gc_counts_total", "spiderpool_ip_gc_failure_counts_total"]


def scraped(texts: Iterable[str]) -> dict[str, float]:
    """The sum of each series over its labels, and over the processes."""
    found: dict[str, float] = {}
    for text in texts:
        for line in text.splitlines():
            if line and not line.startswith("#"):
                labelled, _, value = line.rpartition(" ")
                name = labelled.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
    return found
