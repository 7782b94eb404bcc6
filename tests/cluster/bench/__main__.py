"""`make bench-cluster`: what our system costs a real cluster. `--short` makes one round instead of three and leaves the 150,000 pods out.

Owns the order of the measurements. The last line is one JSON object; the exit code is 1 when a figure misses its must.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.bench.figure import Figure, table
from tests.cluster.bench import admission, memory, ready, requests
from tests.support.kube_cluster import Cluster
from tests.support.kube_system import System

FIGURES = (
    Figure(key="ready20_ratio", what="20 pods Ready, against macvlan + host-local", must=1.1, aim=1.0),
    Figure(key="ready60_ratio", what="60 pods Ready, against macvlan + host-local", must=1.1, aim=1.0),
    Figure(key="api_writes_per_attach", what="writes to the API a pod, all of ours", must=2.0, aim=1.0),
    Figure(key="api_requests_idle_per_min", what="requests to the API a minute, 200 idle agents"),
    Figure(key="webhook_p99_ms", what="admission p99, 200 reviews a second", must=10.0, aim=5.0),
    Figure(
        key="controller_150k_pods_mib",
        what="controller's memory at most, 150,000 pods",
        must=600.0,
        aim=300.0,
        large=True,
    ),
)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--short"]):
        print("usage: python -m tests.cluster.bench [--short]", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("the benchmark makes network namespaces and links: run it as root", file=sys.stderr)
        return 2
    short = bool(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    start = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:5.0f} s  {text}", markup=False)

    values: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="orbweaver-bench-") as root:
        with Cluster(Path(root, "cluster"), audit=True) as cluster, System(cluster) as system:
            values |= ready.measure(cluster, system, say, rounds=1 if short else ready.ROUNDS)
            values["api_writes_per_attach"] = requests.writes_per_attach(cluster, say)
            requests.idle_per_min(cluster.server, say, "2 agents")
            memory.say_each(system.programs, say)
        values["api_requests_idle_per_min"] = requests.idle_with_many_agents(Path(root, "many"), say)
        values["webhook_p99_ms"] = admission.p99_ms(Path(root, "admission"), say)
        if not short:
            values["controller_150k_pods_mib"] = memory.controller_mib(Path(root, "memory"), say)
    figures = {figure.key: figure for figure in FIGURES if figure.key in values}
    console.print(table(values, figures))
    missed = [key for key, figure in figures.items() if not figure.reaches(values[key], figure.must)]
    print(json.dumps({key: round(value, 3) for key, value in values.items()}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
