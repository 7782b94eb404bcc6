"""Named steps at which a process can be made to die, to stall or to lose a message: ORBWEAVER_FAILPOINT.

Owns the names, the form of the variable and what happens at a point. Must not know what the steps are for.

    ORBWEAVER_FAILPOINT=NAME[:N][:ACTION][,…]

At the N-th pass of the point (from 1, counted from the start of the process) ACTION is done, once: `kill` (the default) is
SIGKILL to the process itself, so that nothing is flushed, closed or undone; `delay=50ms` stalls the thread that passes, which
in the event loop is the whole service; `drop` leaves out what the point stands before, where the table allows it. A process
is armed by its `main`; one that was not passes every point for the price of a call.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

VARIABLE = "ORBWEAVER_FAILPOINT"

Action = Literal["kill", "delay", "drop"]


class Point(msgspec.Struct, frozen=True):
    """`stands` tells what was done and what was not when a process dies here. What `drops` is sent at this point, or not."""

    stands: str
    drops: bool = False


POINTS: Mapping[str, Point] = MappingProxyType(
    {
        "agent.call.taken": Point("a call of the runtime is decoded, nothing is done for it", drops=True),
        "agent.intent.journaled": Point("the intent of an ADD is durable, no address is asked for"),
        "agent.allocate.asked": Point("the request for addresses is about to be sent", drops=True),
        "agent.allocate.answered": Point("the addresses are known here and in no journal", drops=True),
        "agent.kernel.netns.open": Point("the pod's namespace is open, nothing in it is changed"),
        "agent.kernel.link.create": Point("the link is in the pod, without its addresses"),
        "agent.kernel.ipv6.switch": Point("IPv6 is switched on for the link"),
        "agent.kernel.address.batch": Point("addresses and routes are set"),
        "agent.kernel.announce": Point("the addresses are announced, the journal says intent"),
        "agent.kernel.undo": Point("what a failed attach had done is taken back, the journal says intent"),
        "agent.journal.completed": Point("the attachment is complete and durable, the runtime is not told"),
        "agent.reply": Point("the answer to the runtime is about to be sent", drops=True),
        "agent.journal.releasing": Point("the detach is durable, the link is still there"),
        "agent.kernel.link.delete": Point("the link is gone from the pod"),
        "agent.kernel.detached": Point(
            "nothing of the attachment is in the kernel, its release is not begun"
        ),
        "agent.release.publish": Point("a release is about to be appended to the work queue", drops=True),
        "agent.release.published": Point("a release is in the work queue, the journal still has the entry"),
        "agent.journal.dropped": Point("the entry of a released attachment is out of the journal"),
        "agent.repair": Point("the agent starts; one entry that it found half done is repaired"),
        "agent.journal.write": Point("records are about to be written, their callers wait"),
        "agent.journal.synced": Point("records are on disk, nobody is told"),
        "agent.journal.rewrite": Point("a compacted journal is complete beside the old one"),
        "agent.journal.renamed": Point("the compacted journal has taken the old one's place"),
        "allocator.decided": Point("memory has decided an allocate, the log has nothing of it"),
        "allocator.append": Point("a record is about to be appended", drops=True),
        "allocator.append.acked": Point("a record is durable, memory does not know and nobody is answered"),
        "allocator.reply": Point("the answer to an allocate is about to be sent", drops=True),
        "allocator.release.ack": Point(
            "a release is in the log and about to leave the work queue", drops=True
        ),
        "allocator.term.start": Point("a replica was elected, its term has no record"),
        "allocator.term.started": Point("the term has its first record, the mark does not say so"),
        "allocator.mark.write": Point("a new mark is complete beside the old one"),
        "allocator.mark.written": Point("the mark outside the stream is replaced"),
        "allocator.snapshot.chunk": Point("one chunk of a snapshot is stored, it has no manifest"),
        "allocator.snapshot.manifest": Point("a snapshot is whole, older ones are not yet dropped"),
        "allocator.rebuild.merged": Point("a lost log's index is rebuilt in memory, nothing of it is stored"),
        "allocator.rebuild.stored": Point("the rebuilt index is stored, the new log has no record"),
        "allocator.rebuild.begun": Point("the new log has its first record, the mark knows the old one"),
        "allocator.rebuild.purged": Point(
            "what was left of the old log is gone, no node is told of the new one"
        ),
        "controller.fact.publish": Point("a fact is about to be published", drops=True),
        "controller.fact.published": Point("a fact is in the stream, the controller has not noted it"),
        "controller.synced": Point("all facts of a full list are published, the mark `synced` is not"),
    }
)

_FORM = re.compile(r"(?P<name>[a-z0-9.]+)(:(?P<n>\d+))?(:(?P<action>kill|drop|delay=(?P<delay_ms>\d+)ms))?")


class Armed(msgspec.Struct, frozen=True, kw_only=True):
    """What happens at the `n`-th pass of `name`."""

    name: str
    n: int = 1
    action: Action = "kill"
    delay_ms: int = 0


class _Set:
    """Counts the passes of one process; any thread may pass."""

    def __init__(self, armed: tuple[Armed, ...]) -> None:
        self._armed = {(one.name, one.n): one for one in armed}
        self._passes = dict.fromkeys((one.name for one in armed), 0)
        self._lock = threading.Lock()

    def reached(self, name: str) -> bool:
        if name not in self._passes:
            return False
        with self._lock:
            self._passes[name] += 1
            now = self._armed.get((name, self._passes[name]))
        return now is not None and self._act(now)

    @staticmethod
    def _act(armed: Armed) -> bool:
        # Past every buffer: the process may end with the next instruction.
        os.write(2, f"failpoint {armed.name}:{armed.n}:{armed.action}\n".encode())
        match armed.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "delay":
                time.sleep(armed.delay_ms / 1000)
            case "drop":
                return True
        return False


_set: _Set | None = None


def parse(text: str) -> tuple[Armed, ...]:
    """What the variable says; nothing for an empty one. Raises ValueError with a sentence."""
    found: list[Armed] = []
    for part in filter(None, text.split(",")):
        match = _FORM.fullmatch(part)
        point = POINTS.get(match["name"]) if match is not None else None
        if match is None or point is None or match["n"] == "0":
            raise ValueError(
                f"{VARIABLE}: {part!r} is not NAME[:N][:kill|drop|delay=…ms] with a name of `orbweaver failpoints`"
            )
        word: str = (match["action"] or "kill").partition("=")[0]
        action = msgspec.convert(word, Action)
        if action == "drop" and not point.drops:
            raise ValueError(
                f"{VARIABLE}: nothing is sent at {match['name']}, so nothing can be dropped there"
            )
        delay_ms = int(match["delay_ms"] or 0)
        found.append(Armed(name=match["name"], n=int(match["n"] or 1), action=action, delay_ms=delay_ms))
    return tuple(found)


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Arms this process by its environment, as its `main` does once. Raises ValueError."""
    global _set
    armed = parse(environment.get(VARIABLE, ""))
    _set = _Set(armed) if armed else None


def hit(name: str) -> bool:
    """Passes the point `name`. True: leave out what comes now, as if it were lost on its way."""
    return _set is not None and _set.reached(name)
