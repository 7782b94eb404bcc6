"""Where the user's objects come from: the port, and the folder of manifests behind it.

Owns one pass over the folder: look, parse, merge, ask what is in use, judge. Must not know the bus: leases are asked through a port,
facts are handed back. The Kubernetes API is another ObjectSource (cluster.py), for which the API server has already judged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from services.controller.folder import Folder
from services.controller.judge import Rules, judge, leaving, questions
from services.controller.leases import Leases
from services.controller.merge import merge
from services.controller.objects import Objects, Stored
from shared.admission.verdict import Verdict
from shared.contracts.facts import Fact, ObjectFact, SourceProblem
from shared.contracts.query import LeaseView
from shared.manifests.document import Document, ManifestFile, ObjectKey, parse
from shared.manifests.meta import Json

REJUDGE_S = 2.0
"""How often what was refused is judged again although no file changed: leases that stood in the way may be gone."""


class InForce(Protocol):
    def fact(self) -> ObjectFact: ...


class ObjectSource(Protocol):
    """Facts come in the order in which they are to be published; each is handed out once."""

    def resume(self, facts: Iterable[Fact]) -> None:
        """Takes up what was published last, one fact a subject. Must be called once, first."""
        ...

    def missing_from(self, facts: Iterable[Fact]) -> list[Fact]:
        """What a stream lacks that was handed out before."""
        ...

    async def run(self) -> None:
        """What the source does by itself, for ever, from `resume` on."""
        ...

    async def news(self, timeout_s: float) -> None:
        """Returns when a `refresh` may find something, at the latest after `timeout_s`."""
        ...

    async def look_up(self, key: ObjectKey) -> bool:
        """Reads one object through, so that the next `refresh` tells it as of now. False: the source does not answer."""
        ...

    @property
    def complete(self) -> bool:
        """Whether everything was read once, so that what is absent is absent."""
        ...

    @property
    def trouble(self) -> str:
        """Why the source is not read now, empty while it is."""
        ...

    async def refresh(self, *, again: bool = False) -> list[Fact]:
        """Reads what changed at the source. `again` judges what was refused once more, whatever changed."""
        ...

    @property
    def collecting(self) -> bool:
        """Whether anything terminating waits for `collect`."""
        ...

    async def collect(self, facts_sequence: int) -> list[Fact]:
        """Tombstones of terminating pools that hold no lease, as of an allocator that has folded FACTS up to there."""
        ...

    def next_version(self) -> int: ...

    @property
    def in_force(self) -> Mapping[ObjectKey, InForce]: ...

    def keys(self, kind: str) -> Iterable[ObjectKey]:
        """The objects of one kind that are in force."""
        ...

    @property
    def problems(self) -> tuple[SourceProblem, ...]: ...

    @property
    def warnings(self) -> tuple[SourceProblem, ...]: ...

    @property
    def files(self) -> int: ...


class FolderSource:
    def __init__(
        self, root: Path, leases: Leases, rules: Callable[[Mapping[ObjectKey, Stored]], Rules]
    ) -> None:
        """`rules` makes the admission rules over what is in force."""
        self._folder = Folder(root)
        self._leases = leases
        self._make_rules = rules
        self._files: dict[str, ManifestFile] = {}
        self._wanted: dict[ObjectKey, Document] = {}
        self._unreadable: dict[str, str] = {}
        self._admitted: dict[ObjectKey, Json] = {}
        self._noted: dict[ObjectKey, Verdict] = {}
        self._problems: tuple[SourceProblem, ...] = ()
        self._warnings: tuple[SourceProblem, ...] = ()
        self._open = True
        self._judged_at_s = 0.0

    def resume(self, facts: Iterable[Fact]) -> None:
        # milliseconds, of which no source has a change in each for long
        self._objects = Objects(facts, first_version=time.time_ns() // 1_000_000)
        self._rules = self._make_rules(self._objects.in_force)

    async def run(self) -> None:
        await asyncio.Event().wait()  # it looks when it is asked

    async def news(self, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)

    async def look_up(self, key: ObjectKey) -> bool:
        return True  # every refresh looks at all of the folder

    @property
    def complete(self) -> bool:
        return True

    @property
    def trouble(self) -> str:
        return ""

    @property
    def in_force(self) -> Mapping[ObjectKey, Stored]:
        return self._objects.in_force

    def keys(self, kind: str) -> Iterable[ObjectKey]:
        return [key for key in self.in_force if key.kind == kind]

    @property
    def problems(self) -> tuple[SourceProblem, ...]:
        return self._problems

    @property
    def warnings(self) -> tuple[SourceProblem, ...]:
        return self._warnings

    @property
    def files(self) -> int:
        return self._folder.files

    def next_version(self) -> int:
        return self._objects.next_version()

    def missing_from(self, facts: Iterable[Fact]) -> list[Fact]:
        return self._objects.missing_from(facts)

    async def refresh(self, *, again: bool = False) -> list[Fact]:
        changed = await asyncio.to_thread(self._look)
        overdue = self._open and time.monotonic() - self._judged_at_s >= REJUDGE_S
        if not changed and not overdue and not (again and self._open):
            return []
        return await self._judge()

    async def collect(self, facts_sequence: int) -> list[Fact]:
        facts: list[Fact] = []
        for key, stored in list(self.in_force.items()):
            if self._leaves(stored):
                leases = await self._leases.of_pool(key.name, facts_sequence)
                if leases is None:
                    break
                if not leases:
                    facts += self._objects.remove(key)
                    self._rules.remove(key)
                    self._open = True
        return facts

    @property
    def collecting(self) -> bool:
        return any(map(self._leaves, self.in_force.values()))

    def _leaves(self, stored: Stored) -> bool:
        return leaving(stored, self._wanted.get(stored.key))

    def _look(self) -> bool:
        """Reads and parses; True if anything about the folder is new."""
        seen = self._folder.look()
        for path, content in seen.changed.items():
            self._files[path] = parse(content, path)
        for path in seen.gone:
            self._files.pop(path, None)
        news = bool(seen.changed or seen.gone or seen.unreadable != self._unreadable)
        self._unreadable = seen.unreadable
        return news

    async def _judge(self) -> list[Fact]:
        wish = merge(self._files, self._unreadable, self.in_force)
        self._wanted = wish.wanted
        held: dict[str, tuple[LeaseView, ...] | None] = {}
        facts: list[Fact] = []
        while True:
            # a pass may bring settings into force that make it ask more
            asked = sorted(questions(self._objects, wish, self._admitted, self._rules) - held.keys())
            held |= await self._ask(asked)
            judgement = judge(
                self._objects, wish, self._admitted, self._noted, self._rules, held, time.time()
            )
            facts += judgement.facts
            if not asked or not judgement.facts:
                break
        self._problems = (*wish.problems, *judgement.problems)
        self._warnings = judgement.warnings
        self._open = judgement.open
        self._judged_at_s = time.monotonic()
        return facts

    async def _ask(self, pools: list[str]) -> dict[str, tuple[LeaseView, ...] | None]:
        held: dict[str, tuple[LeaseView, ...] | None] = dict.fromkeys(pools)
        for pool in pools:
            held[pool] = await self._leases.of_pool(pool)
            if held[pool] is None:
                break  # the others would wait as long for the same silence
        return held
