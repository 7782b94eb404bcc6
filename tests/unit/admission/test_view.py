"""The store behind admission."""

from __future__ import annotations

import random

from shared.admission.view import Objects, key_of
from shared.manifests.document import ObjectKey
from shared.net.network_index import NetworkIndex
from shared.net.ranges import Network, parse_cidr
from tests.unit.admission.objects import conf, multus, pool


def test_overlapping_networks_against_a_scan() -> None:
    chance = random.Random(7)
    index = NetworkIndex()
    held: dict[str, Network] = {}
    for i in range(400):
        family = chance.choice((4, 6))
        bits = 32 if family == 4 else 128
        length = chance.randint(0, 12) if chance.random() < 0.5 else chance.randint(bits - 8, bits)
        address = chance.getrandbits(6) << (bits - 6) if chance.random() < 0.7 else chance.getrandbits(bits)
        shift = bits - length
        network = Network(family, address >> shift << shift, length)
        name = f"n{chance.randint(0, 60)}"
        if name in held:
            index.discard(name, held.pop(name))
        if chance.random() < 0.8:
            index.add(name, network)
            held[name] = network
        wanted = sorted(name for name, one in held.items() if one.overlaps(network))
        assert sorted(index.overlapping(network)) == wanted, i
        assert sorted(index.copy().overlapping(network)) == wanted


def test_a_pool_that_moves_its_subnet_is_found_under_the_new_one() -> None:
    store = Objects([pool()])
    store.put(pool(subnet="10.7.0.0/16"))
    assert [one.metadata.name for one in store.pools_overlapping(parse_cidr("10.7.1.0/24"))] == ["a"]
    assert store.pools_overlapping(parse_cidr("10.6.0.0/16")) == []
    assert store.remove(ObjectKey("SpiderIPPool", "", "a")) is not None
    assert store.pools_overlapping(parse_cidr("0.0.0.0/0")) == []


def test_settings_follow_their_config_map() -> None:
    store = Objects()
    key = store.put(conf("enableIPv4: false"))
    assert not store.settings.enable_ipv4
    store.put(conf("enableIPv4: 5"))
    assert store.settings.enable_ipv4, "what cannot be read is not in force"
    store.put(conf("enableIPv4: false"))
    store.remove(key)
    assert store.settings.enable_ipv4


def test_what_does_not_fit_its_type_is_kept_and_shown_to_no_rule() -> None:
    store = Objects()
    key = store.put(pool(ips=5))
    assert store.get(key) is not None
    assert store.pool("a") is None


def test_copies_are_apart() -> None:
    store = Objects([pool()])
    other = store.copy()
    other.put(pool("b", subnet="10.7.0.0/16"))
    assert store.pool("b") is None
    assert list(store.pools_overlapping(parse_cidr("10.7.0.0/16"))) == []
    assert store.allocated("a") is None
    assert store.copy({"a": {}}).allocated("b") == {}


def test_keys() -> None:
    assert key_of(pool()) == ObjectKey("SpiderIPPool", "", "a")
    assert key_of(multus()) == ObjectKey("SpiderMultusConfig", "x", "m")
    assert key_of({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}) == ObjectKey(
        "Pod", "default", "p"
    )
    assert key_of({"metadata": 5}) == ObjectKey("", "", "")
