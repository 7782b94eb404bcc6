"""`make fuzz`: a million inputs to every entrance of the product; stops at the first that breaks a promise, and says how to replay it.

python -m tests.fuzz [--inputs N] [--target NAME] [--seed TEXT] [--replay FILE] [--guided SECONDS]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import secrets
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.run import Count, Failure, judged, names, run, target_of
from tests.fuzz.target import TARGETS

INPUTS = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="in all; of one target with --target")
    parser.add_argument("--target", choices=names(), help="only this one")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="another seed, other inputs")
    parser.add_argument("--replay", type=Path, help="one input of --target, from a file")
    parser.add_argument(
        "--guided",
        type=int,
        default=0,
        help="also so many seconds by coverage for each pure target (needs atheris)",
    )
    asked = parser.parse_args()
    if asked.replay is not None:
        if asked.target is None:
            parser.error("--replay needs --target")
        wrong = judged(target_of(asked.target).judge, asked.replay.read_bytes())
        print(wrong or "every promise was kept")
        return 1 if wrong else 0
    logging.disable()  # a library tells of each trace context that is none
    chosen = [asked.target] if asked.target else list(names())
    print(f"seed {asked.seed}", flush=True)
    began = time.monotonic()
    counts: list[Count] = []
    try:
        for name in chosen:
            target = target_of(name)
            inputs = asked.inputs if asked.target else asked.inputs * target.share // 1000
            counts.append(run(target, inputs, asked.seed, _tell))
            _say(counts[-1])
    except Failure as failure:
        print(f"\n{failure}", file=sys.stderr)
        return 1
    guided = _guided(asked.guided) if asked.guided else {}
    total = sum(count.inputs for count in counts)
    took_s = time.monotonic() - began
    print(
        json.dumps(
            {
                "inputs": total,
                "per_s": round(total / took_s),
                "seed": asked.seed,
                "targets": {
                    count.name: {"inputs": count.inputs, "per_s": round(count.per_s)} for count in counts
                },
                **({"guided": guided} if guided else {}),
                "ok": all(guided.values()),
            }
        )
    )
    return 0 if all(guided.values()) else 1


def _tell(name: str, done: int, of: int, took_s: float) -> None:
    if sys.stdout.isatty():
        print(f"\r{name:20} {done:>9,} of {of:,}, {done / took_s:,.0f}/s ", end="", flush=True)


def _say(count: Count) -> None:
    start = "\r" if sys.stdout.isatty() else ""
    print(
        f"{start}{count.name:20} {count.inputs:>9,} inputs in {count.took_s:6.1f} s, {count.per_s:>8,.0f}/s   ",
        flush=True,
    )


def _guided(limit_s: int) -> dict[str, bool]:
    """By libFuzzer, which sees what an input reached and goes on from there. Each in a process of its own, since it takes it over."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (pip install atheris): nothing is guided by coverage")
        return {}
    out: dict[str, bool] = {}
    for target in TARGETS:
        if target.guided:
            command = [sys.executable, "-m", "tests.fuzz.guided", target.name, str(limit_s)]
            out[target.name] = subprocess.run(command, check=False).returncode == 0
    return out


if __name__ == "__main__":
    sys.exit(main())
