"""What an entry owes, through retries and re-attaches, and what is given back for it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.agent.call import Call, Pod
from services.agent.config import Ipam, Macvlan, Native
from services.agent.desired import Share, mac_at
from services.agent.entry import UNANSWERED_MAX, Entry, answered, intent, network_status, views
from services.agent.release import releases_of
from services.agent.state import DesiredInterface, OwnedLink
from shared import limits
from shared.contracts.ipam import Grant

CONFIG = Native(version="1.0.0", network="underlay", link=Macvlan(parent="eth1"))
NO_POD = Pod()
GRANT = Grant(ifname="eth0", family=4, address="10.6.0.9/16", pool="v4", generation=7)
SHARES = (Share("eth0", "", (GRANT,)),)
WHOLE = msgspec.structs.replace(CONFIG, further_networks=True)


class Here:
    path = "/run/netns/p"
    device = 4
    inode = 99


def call(attempt: str, pod: Pod = NO_POD) -> Call:
    return Call(
        verb="ADD",
        name="orbweaver",
        attempt=attempt,
        start_ns=5,
        deadline_ns=9,
        body=b"",
        container_id="c1",
        ifname="eth0",
        netns=Here.path,
        pod=pod,
    )


def begun(attempt: str, known: Entry | None = None, mac: str = "02:00:00:00:00:01") -> Entry:
    return intent(call(attempt), CONFIG, Here(), "boot", mac, known)


def releasing(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, state="releasing", reason="DEL")


def test_a_retry_keeps_mac_and_debts() -> None:
    first = begun("a1")
    second = begun("a2", first, mac="02:ff:ff:ff:ff:ff")
    assert second.mac == first.mac
    assert second.unanswered == ("a1", "a2")
    third = begun("a2", second)
    assert third.unanswered == ("a1", "a2")
    assert third.links == (OwnedLink(ifname="eth0", mac=first.mac),)


def test_an_unanswered_attempt_is_given_back_by_name() -> None:
    (release,) = releases_of(releasing(begun("a1")), "n1")
    assert (release.attempt, release.generation, release.reason) == ("a1", 0, "DEL")


def test_an_answered_one_by_its_generation() -> None:
    entry = answered(begun("a1"), "a1", SHARES, "container:c1")
    (release,) = releases_of(releasing(entry), "n1")
    assert (release.attempt, release.generation, release.cooldown_s) == ("a1", 7, 0)
    assert entry.pod_uid == "", "a container is no pod"
    assert entry.addresses == ("10.6.0.9/16",)


def test_both_where_both_are_due() -> None:
    entry = answered(begun("a2", begun("a1")), "a2", SHARES, "u1")
    again = begun("a3", entry)
    assert {(r.attempt, r.generation) for r in releases_of(releasing(again), "n1")} == {
        ("a2", 7),
        ("a1", 0),
        ("a3", 0),
    }


def test_an_address_of_another_plugins_link_rests() -> None:
    config = Ipam(version="1.0.0", network="chain")
    entry = intent(call("a1"), config, Here(), "boot", "", None)
    assert entry.links == ()
    (release,) = releases_of(releasing(entry), "n1")
    assert release.cooldown_s == limits.COOLDOWN_IPAM_S


def test_the_pod_that_the_allocator_names() -> None:
    pod = Pod(namespace="shop", name="web-1")
    entry = answered(intent(call("a1", pod), CONFIG, Here(), "boot", "", None), "a1", SHARES, "u1")
    assert (entry.pod_namespace, entry.pod_name, entry.pod_uid) == ("shop", "web-1", "u1")
    (shown,) = views(entry, "n1", ("so",))
    assert (shown.pod_uid, shown.generation, shown.differences, shown.parent) == ("u1", 7, ("so",), "")


def share(ifname: str, number: int) -> Share:
    grant = Grant(ifname=ifname, family=4, address=f"10.7.{number}.9/24", pool="v4", generation=number)
    return Share(ifname, f"shop/{ifname}-network", (grant,))


def test_one_mac_in_the_journal_stands_for_every_link_of_the_attach() -> None:
    entry = intent(call("a1"), WHOLE, Here(), "boot", "02:00:00:00:00:b7", None)
    macs = [link.mac for link in entry.links]
    assert len(set(macs)) == limits.INTERFACES_PER_POD_MAX
    assert macs[0] == entry.mac
    assert entry.links[0].ifname == entry.ifname, "whatever else it may have made, it was asked for this one"
    assert all(mac.startswith("02:00:00:00:00:") for mac in macs)


def test_what_an_earlier_reply_named_is_still_given_back() -> None:
    entry = intent(call("a1"), WHOLE, Here(), "boot", "02:00:00:00:00:01", None)
    entry = answered(entry, "a1", (*SHARES, share("net1", 8), share("net2", 9)), "u1")
    entry = answered(
        intent(call("a2"), WHOLE, Here(), "boot", "", entry), "a2", (*SHARES, share("net1", 11)), "u1"
    )
    (release,) = releases_of(releasing(entry), "n1")
    assert (release.ifname, release.generation) == ("eth0", 7)
    assert {(one.ifname, one.generation) for one in release.others} == {("net1", 11), ("net2", 9)}


def test_the_network_status_tells_every_interface_that_is_there() -> None:
    entry = intent(call("a1"), WHOLE, Here(), "boot", "02:00:00:00:00:01", None)
    entry = answered(entry, "a1", (*SHARES, share("net1", 8), share("net2", 9)), "u1")
    assert network_status(entry) == (), "not attached yet"
    made = tuple(
        DesiredInterface(ifname=ifname, parent="eth1", mac=mac_at(entry.mac, position))
        for position, ifname in enumerate(("eth0", "net1"))
    )
    entry = msgspec.structs.replace(entry, state="completed", desired=made)
    assert [msgspec.to_builtins(one) for one in network_status(entry)] == [
        {"name": "underlay", "interface": "eth0", "ips": ("10.6.0.9",), "mac": "02:00:00:00:00:01", "default": True, "dns": {}},
        {"name": "shop/net1-network", "interface": "net1", "ips": ("10.7.8.9",), "mac": "02:00:00:00:00:00", "dns": {}},
    ]  # fmt: skip
    assert [(row.interface, row.parent, row.generation) for row in views(entry, "n1")] == [
        ("eth0", "eth1", 7),
        ("net1", "eth1", 8),
        ("net2", "", 9),
    ]


@given(st.lists(st.tuples(st.sampled_from([f"a{n}" for n in range(20)]), st.booleans()), max_size=40))
def test_debts_are_bounded_and_the_latest_is_never_forgotten(tries: list[tuple[str, bool]]) -> None:
    entry: Entry | None = None
    for attempt, is_answered in tries:
        entry = begun(attempt, entry)
        assert entry.unanswered[-1] == attempt
        if is_answered:
            entry = answered(entry, attempt, SHARES, "u1")
            assert attempt not in entry.unanswered
        assert len(entry.unanswered) <= UNANSWERED_MAX
        assert len(set(entry.unanswered)) == len(entry.unanswered)
