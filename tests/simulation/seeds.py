"""The seeds of every test run, in parts that test processes share out; `make sim SEEDS=n START=first` runs any others."""

from __future__ import annotations

from tests.simulation.__main__ import report
from tests.simulation.cluster import COMMANDS_MIN, FAULTS_MIN, run
from tests.simulation.quiet import quiet

SEEDS_PER_PART = 100
SEEDS_PER_TEST = 10


def firsts(part: int) -> range:
    """The first seeds of the tests of one part, parts counted from 0."""
    return range(1 + part * SEEDS_PER_PART, 1 + (part + 1) * SEEDS_PER_PART, SEEDS_PER_TEST)


def hold(first: int) -> None:
    """All holds under every seed of the test that begins with `first`, and each is one that counts."""
    with quiet():
        for seed in range(first, first + SEEDS_PER_TEST):
            outcome = run(seed)
            assert not outcome.violations, report(outcome)
            assert not outcome.is_void, (
                f"seed {seed} is void: {outcome.commands} commands of {COMMANDS_MIN}, {outcome.faults} faults of {FAULTS_MIN}"
            )
