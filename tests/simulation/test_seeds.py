"""A hundred seeds at each test run; `make sim SEEDS=n START=first` runs any others."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import report
from tests.simulation.cluster import COMMANDS_MIN, FAULTS_MIN, run
from tests.simulation.quiet import quiet

SEEDS = 100
SEEDS_PER_TEST = 10


@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_PER_TEST))
def test_all_holds_under_every_seed(first: int) -> None:
    with quiet():
        for seed in range(first, first + SEEDS_PER_TEST):
            outcome = run(seed)
            assert not outcome.violations, report(outcome)
            assert not outcome.is_void, (
                f"seed {seed} is void: {outcome.commands} commands of {COMMANDS_MIN}, {outcome.faults} faults of {FAULTS_MIN}"
            )
