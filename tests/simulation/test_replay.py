"""The same seed is the same run: else a failing one could not be looked at again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.allocator import decide
from tests.simulation.__main__ import report
from tests.simulation.cluster import run
from tests.simulation.quiet import quiet

DIGEST = "from tests.simulation.cluster import run; from tests.simulation.quiet import quiet\nwith quiet(): print(run({}, 150).digest)"


def test_a_seed_is_one_run_whatever_ran_before_and_however_strings_hash() -> None:
    with quiet():
        first, other, again = run(7, 150), run(8, 150), run(7, 150)
    assert first.digest == again.digest != other.digest
    assert (first.steps, first.virtual_s) == (again.steps, again.virtual_s)
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGEST.format(7)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        assert told.stdout.strip() == first.digest


def test_a_failing_seed_tells_its_last_steps_and_how_to_run_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr(decide, "_pick", nothing)
    with quiet():
        outcome = run(3, 150)
    told = report(outcome)
    assert outcome.violations and outcome.violations[0] in told
    assert told.endswith("again: make sim SEEDS=1 START=3")
    assert "ADD c" in told
