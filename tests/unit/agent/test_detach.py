"""Which attachment the allocator means when it asks to detach."""

from __future__ import annotations

import pytest

from services.agent.detach import generation_of, meant
from services.agent.entry import Entry, LeasedInterface
from shared.contracts.collect import AskDetach

ENTRY = Entry(
    container_id="c1",
    ifname="eth0",
    state="completed",
    mode="native",
    attempt="a",
    boot_id="b",
    netns="/run/netns/x",
    device=1,
    inode=2,
    network="underlay",
    generation=3,
    others=(LeasedInterface(ifname="net1", generation=5),),
)
ENTRIES = {ENTRY.attachment: ENTRY}


def ask(ifname: str = "eth0", generation: int = 3, container: str = "c1") -> AskDetach:
    return AskDetach(
        container_id=container, ifname=ifname, generation=generation, reason="collected: missing"
    )


@pytest.mark.parametrize(
    ("question", "found"),
    [(ask(), ENTRY), (ask("net1", 5), ENTRY), (ask("net2"), None), (ask(container="c2"), None)],
)
def test_an_interface_is_of_the_attachment_that_made_it(question: AskDetach, found: Entry | None) -> None:
    assert meant(ENTRIES, question) is found


def test_each_interface_has_its_own_generation() -> None:
    assert [generation_of(ENTRY, name) for name in ("eth0", "net1", "net2")] == [3, 5, 0]
