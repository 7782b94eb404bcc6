"""What the seeds of a run have reached, and what of the product they have not.

Owns the table. Must not know how a run works.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import get_args

import msgspec

from shared.contracts.lease import LeaseEvent
from shared.errors import ERRORS

ROOT = Path(__file__).parents[2]
PRODUCT = ("services/agent/", "services/allocator/")


class Reach:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._seeds: Counter[str] = Counter()

    def take(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)
        self._seeds.update(counts.keys())

    def lines(self, seeds: int) -> Iterator[str]:
        """By kind: how often in all, and in how many of the seeds."""
        width = max(map(len, self._counts), default=0)
        for what in sorted(self._counts):
            yield f"{what:{width}} {self._counts[what]:9} in {100 * self._seeds[what] / seeds:5.1f} % of the seeds"
        for kind, missing in (
            (
                "events of the log",
                self._missing("event ", (str(one.__struct_config__.tag) for one in events())),
            ),
            ("errors answered to an ADD", self._missing("answer ADD: ", ERRORS)),
        ):
            if missing:
                yield f"{kind} that no seed reached: {', '.join(missing)}"

    def _missing(self, prefix: str, names: Iterable[object]) -> list[str]:
        return sorted(str(name) for name in names if f"{prefix}{name}" not in self._counts)


def events() -> tuple[type[msgspec.Struct], ...]:
    return get_args(LeaseEvent)


class Functions:
    """With `with Functions() as functions:`, which functions of the product were entered. It doubles the time of a run."""

    def __init__(self) -> None:
        self._entered: set[CodeType] = set()

    def __enter__(self) -> Functions:
        entered = self._entered

        def profile(frame: FrameType, event: str, _argument: object) -> None:
            if event == "call":
                entered.add(frame.f_code)

        sys.setprofile(profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def never(self) -> Iterator[str]:
        """Functions of agent and allocator that were imported and never entered."""
        entered = {(code.co_filename, code.co_qualname) for code in self._entered}
        for name, module in sorted(sys.modules.items()):
            path = getattr(module, "__file__", None) or ""
            place = path.removeprefix(f"{ROOT}/")
            if place.startswith(PRODUCT):
                missing = [q for q in _functions(vars(module), name) if (path, q) not in entered]
                if missing:
                    yield f"{place}: {', '.join(missing)}"


def _functions(of: Mapping[str, object], module: str) -> Iterator[str]:
    for one in of.values():
        bare: object = getattr(one, "__func__", getattr(one, "fget", one))
        if isinstance(bare, FunctionType) and bare.__module__ == module:
            yield bare.__code__.co_qualname
        elif isinstance(bare, type) and bare.__module__ == module:
            yield from _functions(vars(bare), module)
