"""Asks the allocator for a pod's addresses until it answers or the caller's deadline comes.

Owns the repetition: the same attempt again gives the same addresses, so an unknown outcome is simply asked again. Must
not know what the addresses are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import msgspec
import structlog

from services.agent.call import Call
from services.agent.config import Ipam, Native
from services.agent.entry import has_further_networks
from shared import failpoint, subjects
from shared.bus import Bus, BusDenied, BusTimeout, NoResponder
from shared.clock import NodeClock
from shared.contracts.codec import MessageError, encode
from shared.contracts.ipam import ALLOCATE_REPLY, Allocate, Allocated, InterfaceRequest, Mark
from shared.errors import ERRORS, OrbweaverError
from shared.telemetry import inject
from shared.telemetry.metrics import AgentMetrics

log = structlog.get_logger()

ANSWER_S = 2.0
PAUSE_MIN_S, PAUSE_MAX_S = 0.02, 1.0
AWAY_S = 10.0
"""For so long a request that reached nobody makes the hub count as away."""
_RESERVE_NS = 1_000_000_000
"""What must be left of the deadline for the attach itself."""
_SECOND_NS = 1_000_000_000
RELEASED_S = 1.0
"""For so long a release may be on its way."""
_AGAIN = ("try_later", "log_unsafe")


def request_of(call: Call, config: Native | Ipam, node: str) -> Allocate:
    """What is asked for one ADD: the calling interface, and those of further networks where they are ours to attach. Pure."""
    wanted = InterfaceRequest(
        ifname=call.ifname,
        network=config.reference if isinstance(config, Native) else "",
        ipv4=config.ipv4,
        ipv6=config.ipv6,
        clean_gateway=isinstance(config, Ipam) and config.clean_gateway,
    )
    return Allocate(
        attempt=call.attempt,
        node=node,
        container_id=call.container_id,
        ifname=call.ifname,
        interfaces=(wanted,),
        ttl_ms=0,
        pod_namespace=call.pod.namespace,
        pod_name=call.pod.name,
        pod_uid=call.pod.uid,
        further_networks=has_further_networks(config),
    )


class Allocation:
    """`released_ns` tells when this node last gave an address back, `seen` the furthest place in the lease log that its journal
    knows: an answer from another log is not taken."""

    def __init__(
        self,
        bus: Bus,
        node: str,
        metrics: AgentMetrics,
        *,
        clock: NodeClock,
        random: Random,
        released_ns: Callable[[], int],
        seen: Callable[[], Mark],
    ) -> None:
        self._bus = bus
        self._seen = seen
        self._subject = subjects.allocate(node)
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._released_ns = released_ns
        self._unreached_ns = 0

    def away(self) -> bool:
        """Whether the last request reached nobody, a moment ago."""
        return self._unreached_ns > 0 and self._clock.boottime_ns() - self._unreached_ns < AWAY_S * _SECOND_NS

    async def ask(self, request: Allocate, deadline_ns: int) -> Allocated:
        """Raises OrbweaverError: what the allocator refused, or `try_later` with the last reason at the deadline."""
        pause_s = PAUSE_MIN_S
        answer = OrbweaverError("try_later", "no time is left before the caller's deadline")
        while (usable_s := (deadline_ns - _RESERVE_NS - self._clock.boottime_ns()) / _SECOND_NS) > 0:
            request = msgspec.structs.replace(request, ttl_ms=int(usable_s * 1000), seen=self._seen())
            answer = await self._once(request, min(ANSWER_S, usable_s))
            if isinstance(answer, Allocated):
                return answer
            if not self._may_change(answer):
                raise answer
            await asyncio.sleep(min(pause_s * self._random.uniform(0.7, 1.0), usable_s))
            pause_s = min(pause_s * 2, PAUSE_MAX_S)
        if answer.kind.name not in _AGAIN:
            raise answer
        raise OrbweaverError("try_later", f"no address before the caller's deadline: {answer.message}")

    def _may_change(self, refusal: OrbweaverError) -> bool:
        """Whether the same question may soon have another answer. An address that this node gave back a moment ago may
        still be on its way to the allocator: whoever detaches and then attaches is to get it."""
        if refusal.kind.name == "pool_exhausted":
            return self._clock.boottime_ns() - self._released_ns() < RELEASED_S * _SECOND_NS
        return refusal.kind.name in _AGAIN

    async def _once(self, request: Allocate, timeout_s: float) -> Allocated | OrbweaverError:
        """The answer, or the refusal. Raises OrbweaverError for what no repetition mends."""
        headers: dict[str, str] = {}
        inject(headers)
        try:
            if failpoint.hit("agent.allocate.asked"):
                raise BusTimeout("the request was lost by a failpoint")
            message = await self._bus.request(self._subject, encode(request), timeout_s, headers or None)
            if failpoint.hit("agent.allocate.answered"):
                raise BusTimeout("the answer was lost by a failpoint")
        except NoResponder as error:
            self._unreached_ns = self._clock.boottime_ns()
            return OrbweaverError("try_later", f"the allocator is away ({error})")
        except BusTimeout as error:
            return OrbweaverError("try_later", f"the allocator does not answer ({error})")
        except BusDenied as error:
            raise OrbweaverError("credential_refused", str(error)) from error
        self._unreached_ns = 0
        try:
            reply = ALLOCATE_REPLY.decode(message.data)
        except MessageError as error:
            raise self._foreign(f"is of another form: {error}") from None
        if reply.attempt != request.attempt:
            raise self._foreign(f"is to attempt {reply.attempt}, not to {request.attempt}")
        if isinstance(reply, Allocated):
            if self._seen().incarnation in ("", reply.mark.incarnation):
                return reply
            return OrbweaverError(
                "log_unsafe",
                f"the answer is from log {reply.mark.incarnation}, which this node has not joined",
            )
        return OrbweaverError(reply.error if reply.error in ERRORS else "internal", reply.message)

    def _foreign(self, found: str) -> OrbweaverError:
        self._metrics.refused("orb.ipam.allocate")
        log.error("answer of the allocator refused", found=found)
        return OrbweaverError("internal", f"the allocator's answer {found}")
