"""Asks the allocator for a pod's addresses until it answers or the caller's deadline comes.

Owns the repetition: the same attempt again gives the same addresses, so an unknown outcome is simply asked again. Must
not know what the addresses are for.
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import structlog

from services.agent.call import Call
from services.agent.config import Ipam, Native
from services.agent.execute import now_ns
from shared import subjects
from shared.bus import Bus, BusDenied, BusTimeout, NoResponder
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
_AGAIN = ("try_later", "log_unsafe")


def request_of(call: Call, config: Native | Ipam, node: str, seen: Mark) -> Allocate:
    """What is asked for one ADD: the calling interface. Pure."""
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
        seen=seen,
    )


class Allocation:
    def __init__(self, bus: Bus, node: str, metrics: AgentMetrics) -> None:
        self._bus = bus
        self._subject = subjects.allocate(node)
        self._metrics = metrics
        self._unreached_ns = 0

    def away(self) -> bool:
        """Whether the last request reached nobody, a moment ago."""
        return self._unreached_ns > 0 and now_ns() - self._unreached_ns < AWAY_S * _SECOND_NS

    async def ask(self, request: Allocate, deadline_ns: int) -> Allocated:
        """Raises OrbweaverError: what the allocator refused, or `try_later` with the last reason at the deadline."""
        pause_s = PAUSE_MIN_S
        while True:
            left_ns = deadline_ns - now_ns()
            usable_s = (left_ns - _RESERVE_NS) / _SECOND_NS
            if usable_s <= 0:
                raise OrbweaverError("try_later", "no time is left before the caller's deadline")
            request = msgspec.structs.replace(request, ttl_ms=int(usable_s * 1000))
            answer = await self._once(request, min(ANSWER_S, usable_s))
            if isinstance(answer, Allocated):
                return answer
            if pause_s >= (deadline_ns - _RESERVE_NS - now_ns()) / _SECOND_NS:
                raise OrbweaverError("try_later", f"no address before the caller's deadline: {answer}")
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.0))
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _once(self, request: Allocate, timeout_s: float) -> Allocated | str:
        """The answer, or why it must be asked again. Raises OrbweaverError for a final no."""
        headers: dict[str, str] = {}
        inject(headers)
        try:
            message = await self._bus.request(self._subject, encode(request), timeout_s, headers or None)
        except NoResponder as error:
            self._unreached_ns = now_ns()
            return f"the allocator is away ({error})"
        except BusTimeout as error:
            return f"the allocator does not answer ({error})"
        except BusDenied as error:
            raise OrbweaverError("credential_refused", str(error)) from error
        self._unreached_ns = 0
        try:
            reply = ALLOCATE_REPLY.decode(message.data)
        except MessageError as error:
            self._metrics.refused("orb.ipam.allocate")
            log.error("answer of the allocator refused", error=str(error))
            raise OrbweaverError("internal", f"the allocator's answer is of another form: {error}") from None
        if reply.attempt != request.attempt:
            self._metrics.refused("orb.ipam.allocate")
            raise OrbweaverError(
                "internal", f"the allocator answered attempt {reply.attempt}, not {request.attempt}"
            )
        if isinstance(reply, Allocated):
            return reply
        if reply.error in _AGAIN:
            return reply.message
        raise OrbweaverError(reply.error if reply.error in ERRORS else "internal", reply.message)
