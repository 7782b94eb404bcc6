"""How fast nodes are asked to detach: objects that are gone in error must not end every attachment at once. Pure.

Owns the bounds. Must not know what is detached, nor clocks; times are given.
"""

from __future__ import annotations

from collections import deque

from shared import limits

MINUTE_S = 60.0


class Pace:
    """Of one node in a minute as many as an agent sweeps by itself: five, or a tenth of what it holds."""

    def __init__(self) -> None:
        self._asked: dict[str, deque[float]] = {}

    def take(self, node: str, holdings: int, pods: int, now_s: float) -> bool:
        """Whether one more may be asked of the node now, which holds so many. With no pod known at all (`pods`) an empty list is the
        likelier cause than a cluster without pods: then only a few are ever asked for without a person's word."""
        most = max(limits.RECONCILE_SWEEP_MIN, int(limits.RECONCILE_SWEEP_FRACTION * holdings))
        if not pods and holdings > limits.RECONCILE_SWEEP_MIN:
            return False
        asked = self._asked.setdefault(node, deque())
        while asked and now_s - asked[0] >= MINUTE_S:
            asked.popleft()
        if len(asked) >= most:
            return False
        asked.append(now_s)
        return True

    def forget(self, now_s: float) -> None:
        """Nodes that were not asked for a minute."""
        for node in [
            node for node, asked in self._asked.items() if not asked or now_s - asked[-1] >= MINUTE_S
        ]:
            del self._asked[node]
