"""`python -m tests.simulation [--seeds N] [--first N] [--commands N]`: runs seeds and says what held, and what they reached."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from tests.simulation.cluster import COMMANDS_MIN, FAULTS_MIN, LAST_LINES, Outcome, run
from tests.simulation.quiet import quiet
from tests.simulation.reach import Functions, Reach


def report(outcome: Outcome) -> str:
    """A failing seed: what is wrong, the last steps, how to run it again."""
    last = "\n".join(f"  {line[:400]}" for line in outcome.last)
    wrong = "\n".join(f"  {sentence}" for sentence in outcome.violations[:10])
    return (
        f"seed {outcome.seed} fails:\n{wrong}\nthe last steps:\n{last}\n"
        f"again: make sim SEEDS=1 START={outcome.seed}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--commands", type=int, default=COMMANDS_MIN)
    parser.add_argument("--trace", action="store_true", help="prints every step of a failing seed")
    parser.add_argument("--failures", type=int, default=10, help="ends after so many failing seeds")
    parser.add_argument("--functions", action="store_true", help="names the functions that no seed entered")
    arguments = parser.parse_args()
    began_s = time.perf_counter()
    n = failed = void = steps = commands = faults = 0
    virtual_s = 0.0
    reach, functions = Reach(), Functions()
    with quiet(), functions if arguments.functions else contextlib.nullcontext():
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            n += 1
            outcome = run(seed, arguments.commands, None if arguments.trace else LAST_LINES)
            steps += outcome.steps
            commands += outcome.commands
            faults += outcome.faults
            virtual_s += outcome.virtual_s
            if outcome.is_void:
                void += 1
                print(
                    f"seed {seed} is void: {outcome.commands} commands of {COMMANDS_MIN}, {outcome.faults} faults of {FAULTS_MIN}",
                    flush=True,
                )
            reach.take(outcome.counts)
            if outcome.violations:
                failed += 1
                print(report(outcome), flush=True)
                if failed == arguments.failures:
                    break
    spent_s = time.perf_counter() - began_s
    print(*reach.lines(n), *(functions.never() if arguments.functions else ()), sep="\n")
    print(
        f"{n} seeds, {failed} failed, {void} void; {n / spent_s:.1f} seeds/s; a seed has {steps // n} steps, {commands // n} commands, "
        f"{faults / n:.1f} faults, {virtual_s / n:.0f} s of virtual time"
    )
    return 1 if failed or void else 0


if __name__ == "__main__":
    sys.exit(main())
