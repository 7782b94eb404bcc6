"""Part 2 of the five hundred seeds."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import firsts, hold


@pytest.mark.parametrize("first", firsts(1))
def test_all_holds_under_every_seed(first: int) -> None:
    hold(first)
