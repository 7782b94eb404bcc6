"""Cuts the links to which nobody has a right any more: of nodes that are gone, and such as were opened with a key that ended.

A reload of nats-server 2.15.1 disconnects clients whose user is gone, but no leaf links. Owns who is cut. Must not know how keys are
made.
"""

from __future__ import annotations

import http.client
from collections.abc import Collection, Iterable, Mapping

import msgspec
import structlog

from shared.bus import Bus, BusError
from shared.settings import BusSettings

log = structlog.get_logger()


_TIMEOUT_S = 5.0


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf link as the server's monitoring lists it."""

    id: int
    account: str = ""
    name: str = ""


class _Links(msgspec.Struct, frozen=True, kw_only=True):
    server_id: str = ""
    leafs: tuple[Link, ...] = ()


def doomed(
    links: Iterable[Link], seen: Mapping[int, int], accounts: Collection[str], epoch: int
) -> list[Link]:
    """Links of no account that there is, and those first seen (`seen`, by id) two epochs ago: whatever key opened them has ended."""
    return [link for link in links if link.account not in accounts or seen.get(link.id, epoch) <= epoch - 2]


class Links:
    """The links of one server, asked of its monitoring port and cut as the system account."""

    def __init__(self, monitor_port: int, system: BusSettings) -> None:
        self._port = monitor_port
        self._system = system
        self._seen: dict[int, int] = {}
        self._server = ""

    def look(self, accounts: Collection[str], epoch: int) -> list[Link]:
        """Notes what is there and tells what must go. Blocks. Raises OSError."""
        found = self._listed()
        self._seen = {link.id: self._seen.get(link.id, epoch) for link in found}
        return doomed(found, self._seen, accounts, epoch)

    def _listed(self) -> tuple[Link, ...]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/leafz")
            found = msgspec.json.decode(connection.getresponse().read(), type=_Links)
        except (http.client.HTTPException, msgspec.MsgspecError) as error:
            raise OSError(f"the links cannot be listed: {error!r}") from None
        finally:
            connection.close()
        self._server = found.server_id
        return found.leafs

    async def cut(self, links: Iterable[Link]) -> None:
        """Raises OSError."""
        try:
            bus = await Bus.connect(self._system, "hub links", attempts=3)
            try:
                for link in links:
                    body = msgspec.json.encode({"cid": link.id})
                    await bus.request(f"$SYS.REQ.SERVER.{self._server}.KICK", body)
                    log.info("link cut", leaf=link.name)
            finally:
                await bus.close()
        except BusError as error:
            raise OSError(f"links cannot be cut: {error}") from None
