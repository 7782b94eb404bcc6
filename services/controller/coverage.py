"""How far of the lease log the SpiderEndpoints tell: every pod that a record touched is remembered until its endpoint says so.

Owns that reckoning. Must not know how an endpoint is written. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.contracts.mark import Mirrored

Pod = tuple[str, str]


class Coverage:
    """Of one mirror of the log; another begins anew."""

    def __init__(self) -> None:
        self._incarnation = ""
        self._sequence = 0
        self._waiting: dict[Pod, tuple[int, int]] = {}
        """The first record of each pod that its endpoint does not tell yet, and the last."""

    def folded(self, incarnation: str, sequence: int, pods: Iterable[Pod]) -> None:
        """The log is folded up to there, and these pods were touched since last told."""
        for pod in pods:
            first, _ = self._waiting.get(pod, (sequence, sequence))
            self._waiting[pod] = (first, sequence)
        self._incarnation, self._sequence = incarnation, sequence

    @property
    def sequence(self) -> int:
        """Who begins to write now knows the log up to there."""
        return self._sequence

    def written(self, pod: Pod, began: int) -> None:
        """The endpoint tells all of the pod that was known at `began`."""
        waiting = self._waiting.get(pod)
        if waiting is None:
            return
        if waiting[1] <= began:
            del self._waiting[pod]
        else:
            self._waiting[pod] = (max(waiting[0], began + 1), waiting[1])

    @property
    def through(self) -> Mirrored | None:
        """Up to where everything is written; None before the log was folded."""
        if not self._incarnation:
            return None
        first = min((first for first, _ in self._waiting.values()), default=self._sequence + 1)
        return Mirrored(incarnation=self._incarnation, sequence=first - 1)
