"""The requests that wait for their decision: first come, first served for each node, and the nodes in turn.

Owns the bounds: of one node, and of all. Must not know what is asked, or when it is decided. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from shared import limits

T = TypeVar("T")


class Waiting(Generic[T]):
    """A node that floods waits behind itself: it takes neither turns nor room from the others. What is `held` has no turn now and
    counts all the same."""

    def __init__(
        self, most: int = limits.QUEUE_MAX_REQUESTS, most_of_node: int = limits.QUEUE_NODE_MAX_REQUESTS
    ) -> None:
        self._most = most
        self._most_of_node = most_of_node
        self._by_node: dict[str, deque[T]] = {}
        self._turns: deque[str] = deque()
        self._held: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        """Those that have a turn."""
        return self._count

    def of_node(self, node: str) -> int:
        return len(self._by_node.get(node, ())) + self._held.get(node, 0)

    def put(self, node: str, request: T) -> tuple[T, ...]:
        """Takes `request` in and returns what has no room: it itself, or where all is full the last of the node with the most."""
        own = self.of_node(node)
        if own >= self._most_of_node:
            return (request,)
        if self._count < self._most:
            self._enter(node, request)
            return ()
        if (own + 1) * len(self._turns) > self._most:
            return (request,)  # it has its share
        fullest = max(self._turns, key=self.of_node)
        if self.of_node(fullest) <= own + 1:
            return (request,)
        given_up = self._by_node[fullest].pop()
        self._count -= 1
        if not self._by_node[fullest]:
            self._turns.remove(fullest)
            del self._by_node[fullest]
        self._enter(node, request)
        return (given_up,)

    def hold(self, node: str) -> None:
        """What was taken waits for something else, until it is `put_back` or `let_go`."""
        self._held[node] = self._held.get(node, 0) + 1

    def let_go(self, node: str) -> None:
        self._held[node] -= 1
        if not self._held[node]:
            del self._held[node]

    def put_back(self, node: str, request: T) -> None:
        self.let_go(node)
        self._enter(node, request)

    def _enter(self, node: str, request: T) -> None:
        waiting = self._by_node.get(node)
        if waiting is None:
            waiting = self._by_node[node] = deque()
            self._turns.append(node)
        waiting.append(request)
        self._count += 1

    def take(self) -> T:
        """The next in turn. Raises IndexError if nobody waits."""
        node = self._turns.popleft()
        waiting = self._by_node[node]
        request = waiting.popleft()
        self._count -= 1
        if waiting:
            self._turns.append(node)
        else:
            del self._by_node[node]
        return request
