"""Runs targets: so many inputs of each, told as they go, until the first that breaks a promise.

Owns counting, time limits, and how a failure is written down and replayed. An input that takes longer than SLOW_S is a failure:
whoever can send it could hold up everybody else.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutation import mutated, smaller
from tests.fuzz.structured import STRUCTURED, Structured
from tests.fuzz.target import TARGETS, Target

SLOW_S = 2.0
SHRINK_S = 5.0
CHUNK_INPUTS = 2000
"""Of one hypothesis run: it remembers what it tried, and would slow down."""
KEPT = Path("build/fuzz")
Tell = Callable[[str, int, int, float], None]


class Failure(Exception):
    """An input that broke a promise; the sentence tells how to replay it."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    inputs: int
    took_s: float

    @property
    def per_s(self) -> float:
        return self.inputs / self.took_s if self.took_s else 0.0


def names() -> tuple[str, ...]:
    return (*(target.name for target in TARGETS), *(target.name for target in STRUCTURED))


def target_of(name: str) -> Target | Structured:
    return next(target for target in (*TARGETS, *STRUCTURED) if target.name == name)


def run(target: Target | Structured, inputs: int, begin: str, tell: Tell | None = None) -> Count:
    """So many inputs of one target; `begin` seeds them. Raises Failure."""
    began = time.monotonic()
    if isinstance(target, Target):
        _run_mutated(target, inputs, begin, tell)
    else:
        _run_structured(target, inputs, begin, tell)
    return Count(name=target.name, inputs=inputs, took_s=time.monotonic() - began)


def made(target: Target, begin: str, number: int) -> bytes:
    """Input `number` of a run."""
    return mutated(target.seeds, target.words, random.Random(f"{begin}/{target.name}/{number}"))


def judged(judge: Callable[[Any], None], data: Any) -> str:
    """Empty, or what is wrong with how `data` was taken."""
    began = time.perf_counter()
    try:
        judge(data)
    except Exception:
        return traceback.format_exc()
    took_s = time.perf_counter() - began
    if took_s > SLOW_S:
        # Once more: the machine may have been busy.
        began = time.perf_counter()
        judge(data)
        took_s = min(took_s, time.perf_counter() - began)
    return f"it took {took_s:.1f} s" if took_s > SLOW_S else ""


def _run_mutated(target: Target, inputs: int, begin: str, tell: Tell | None) -> None:
    began = told = time.monotonic()
    for number in range(inputs):
        data = made(target, begin, number)
        wrong = judged(target.judge, data)
        if wrong:
            raise _failure(target, data, wrong, f"seed {begin}, input {number}")
        if tell is not None and time.monotonic() - told >= 1.0:
            told = time.monotonic()
            tell(target.name, number + 1, inputs, told - began)


def _failure(target: Target, data: bytes, wrong: str, made_of: str) -> Failure:
    """Writes the input down, and a smaller one that fails in the same way."""
    least = _shrunk(target, data, wrong)
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{target.name}.input"
    path.write_bytes(least)
    return Failure(
        f"{target.name}: {made_of}\n{wrong}\n"
        f"input ({len(least)} bytes, of {len(data)}): {least[:300]!r}\n"
        f"replay: python -m tests.fuzz --target {target.name} --replay {path}"
    )


def _shrunk(target: Target, data: bytes, wrong: str) -> bytes:
    last = wrong.strip().rpartition("\n")[2].partition(":")[0]
    until = time.monotonic() + SHRINK_S
    going = True
    while going and time.monotonic() < until:
        going = False
        for less in smaller(data):
            if time.monotonic() > until:
                break
            found = judged(target.judge, less)
            if found and found.strip().rpartition("\n")[2].partition(":")[0] == last:
                data, going = less, True
                break
    return data


def _run_structured(target: Structured, inputs: int, begin: str, tell: Tell | None) -> None:
    done = 0
    chunk = 0
    began = told = time.monotonic()
    failing: list[Any] = []

    def judge(data: Any) -> None:
        nonlocal done
        done += 1
        wrong = judged(target.judge, data)
        if wrong:
            failing[:] = [data, wrong]
            raise AssertionError(wrong)

    while done < inputs:
        case = settings(
            max_examples=min(CHUNK_INPUTS, inputs - done),
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(seed(f"{begin}/{chunk}")(given(target.strategy)(judge)))
        before = done
        try:
            case()
        except Exception:
            if not failing:
                raise
            raise Failure(
                f"{target.name}: seed {begin}\n{failing[1]}\ninput: {failing[0]!r}\n"
                f"replay: python -m tests.fuzz --target {target.name} --seed {begin} --inputs {done}"
            ) from None
        assert done > before, f"the strategy of {target.name} makes nothing"
        chunk += 1
        if tell is not None and time.monotonic() - told >= 1.0:
            told = time.monotonic()
            tell(target.name, done, inputs, told - began)
