"""The annotations of pods and namespaces: what is read, what is refused, in words that users know."""

from __future__ import annotations

import json

import pytest

from shared.manifests import annotations as notes
from shared.manifests.annotations import IPNumber, NicPools, NicSubnet, PoolRequest
from shared.manifests.ipam import Route
from shared.manifests.networks import NetworkRef, default_network, interface_of, networks
from shared.manifests.problem import Invalid


def message(value: object) -> str:
    assert isinstance(value, Invalid)
    assert all(error.field.startswith("metadata.annotations[") for error in value.errors)
    return value.message


def test_ippool() -> None:
    text = '{"ipv4":["web-v4-a","web-v4-b"],"ipv6":["web-v6"]}'
    assert notes.ippool(text) == PoolRequest(ipv4=("web-v4-a", "web-v4-b"), ipv6=("web-v6",))


def test_e00009_one_family_is_enough() -> None:
    assert notes.ippool('{"ipv4":["a"]}') == PoolRequest(ipv4=("a",))
    assert notes.ippools('[{"ipv6":["a"]}]') == (NicPools(ipv6=("a",)),)


@pytest.mark.parametrize("text", ['{"npv4":["a"]}', "{}", '{"ipv4":[],"ipv6":null}'])
def test_a00003_only_unknown_keys_is_wrong_input(text: str) -> None:
    assert "no IPPool is named" in message(notes.ippool(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "{",
        "null",
        "5",
        '"a"',
        "[1]",
        '{"ipv4":"a"}',
        '{"ipv4":[5]}',
        '{"ipv4":[""]}',
        '{"ipv4":["A b"]}',
        "[" * 9999,
    ],
)
def test_a00003_broken_json_is_wrong_input(text: str) -> None:
    for parser in (notes.ippool, notes.ippools, notes.subnet, notes.subnets):
        assert message(parser(text))


def test_keys_match_in_any_case_and_unknown_ones_are_ignored() -> None:
    text = '[{"Interface":"net1","IPv4":["a"],"cleanGateway":true,"more":{}}]'
    assert notes.ippools(text) == (NicPools(interface="net1", ipv4=("a",), clean_gateway=True),)


def test_a00013_the_named_interfaces_are_told() -> None:
    assert notes.ippools('[{"interface":"net1","ipv4":["a"]}]') == (NicPools(interface="net1", ipv4=("a",)),)


def test_a00014_duplicate_interface() -> None:
    text = '[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0","ipv4":["b"]}]'
    assert "duplicate interface eth0" in message(notes.ippools(text))


def test_a00018_nameless_items_keep_their_order() -> None:
    assert notes.ippools('[{"ipv4":["a"]},{"ipv4":["b"]}]') == (NicPools(ipv4=("a",)), NicPools(ipv4=("b",)))


def test_ippools_sentences() -> None:
    assert "value requires at least one item" in message(notes.ippools("[]"))
    mixed = '[{"interface":"eth0","ipv4":["a"]},{"ipv4":["b"]}]'
    assert "NIC should be either all specified or all unspecified" in message(notes.ippools(mixed))
    assert "no IPPool is named" in message(notes.ippools('[{"interface":"eth0"}]'))
    assert "longer than 15" in message(notes.ippools('[{"interface":"a23456789012345x","ipv4":["a"]}]'))


def test_all_mistakes_of_an_annotation_at_once() -> None:
    value = notes.ippools(
        '[{"interface":"a/b","ipv4":[5]},{"interface":"a/b","ipv6":["x","x"]},{"cleangateway":1}]'
    )
    assert isinstance(value, Invalid)
    assert len(value.errors) == 7, value


def test_a00015_patterns_are_kept_and_bad_ones_refused() -> None:
    assert notes.ippool('{"ipv4":["red-*","blue-?"]}') == PoolRequest(ipv4=("red-*", "blue-?"))
    assert "syntax error in pattern" in message(notes.ippool('{"ipv4":["a[]b"]}'))


def test_a_name_twice_is_refused_and_a_pattern_twice_is_one() -> None:
    assert "duplicate IPPool a" in message(notes.ippool('{"ipv4":["a","a"]}'))
    assert notes.ippool('{"ipv4":["a*","a*"]}') == PoolRequest(ipv4=("a*",))


def test_subnet_and_subnets() -> None:
    assert notes.subnet('{"ipv4":["corp-v4","ignored"],"ipv6":["corp-v6"]}') == NicSubnet(
        interface="eth0", ipv4="corp-v4", ipv6="corp-v6"
    )
    found = notes.subnets('[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["b"]}]')
    assert found == (NicSubnet(interface="eth0", ipv4="a"), NicSubnet(interface="net1", ipv4="b"))
    assert "no subnet is named" in message(notes.subnet('{"interface":"eth0"}'))
    twice = '[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0","ipv4":["a"]}]'
    assert "duplicate interface eth0" in message(notes.subnets(twice))
    assert "the subnet a is named for two interfaces" in message(notes.subnets(twice))
    assert "wildcards" in message(notes.subnet('{"ipv4":["a*"]}'))


def test_ip_number() -> None:
    assert notes.ip_number("+2") == IPNumber(flexible=True, count=2)
    assert notes.ip_number("5") == IPNumber(flexible=False, count=5)
    assert notes.ip_number("0") == IPNumber(flexible=False, count=0)
    for bad in ("", "+", "++1", "-1", "1.5", "a", "٣", "9" * 30):
        assert "must equal or greater than 0" in message(notes.ip_number(bad))


def test_reclaim() -> None:
    assert notes.reclaim("true") is True
    assert notes.reclaim("False") is False
    assert message(notes.reclaim("yes"))


def test_routes() -> None:
    assert notes.routes('[{"dst":"10.40.0.0/16","gw":"172.20.0.254"}]') == (
        Route(dst="10.40.0.0/16", gw="172.20.0.254"),
    )
    assert "different families" in message(notes.routes('[{"dst":"10.0.0.0/8","gw":"fd00::1"}]'))
    assert "[1]: invalid route" in message(notes.routes('[{"dst":"10.0.0.0/8","gw":"10.0.0.1"},{"dst":"x"}]'))
    assert notes.routes("[]") == ()


def test_default_route_nic() -> None:
    assert notes.default_route_nic("net1") == "net1"
    assert notes.default_route_nic("") == ""
    assert message(notes.default_route_nic("a b"))


def test_a00007_namespace_defaults() -> None:
    marks = {notes.DEFAULT_IPV4_IPPOOL: '["ns-v4-a","shared-v4-?"]', notes.DEFAULT_IPV6_IPPOOL: ""}
    assert notes.namespace_defaults(marks) == PoolRequest(ipv4=("ns-v4-a", "shared-v4-?"))
    assert notes.namespace_defaults({}) == PoolRequest()
    assert notes.namespace_defaults({notes.DEFAULT_IPV6_IPPOOL: "[]"}) == PoolRequest()
    both = {notes.DEFAULT_IPV4_IPPOOL: "a", notes.DEFAULT_IPV6_IPPOOL: "{}"}
    value = notes.namespace_defaults(both)
    assert isinstance(value, Invalid)
    assert len(value.errors) == 2


def test_networks_in_the_comma_form() -> None:
    assert networks("a/b@net9, c ,d@x1", "ns") == (
        NetworkRef(namespace="a", name="b", interface="net9"),
        NetworkRef(namespace="ns", name="c"),
        NetworkRef(namespace="ns", name="d", interface="x1"),
    )
    assert networks("", "ns") == ()
    for bad in ("a/b/c", "a@b@c", "a.b", "A", "a,,b", "x/", "a@", "a@averylonginterfacename", "a b", "a@e_0"):
        assert message(networks(bad, "ns"))
    assert "duplicate interface e1" in message(networks("a@e1,b@e1", "ns"))


def test_m00036_networks_as_json() -> None:
    text = '[{"name":"a","interface":"net1","namespace":"x"},{"name":"b.c","ips":["10.0.0.9/24"],"mac":"aa:bb:cc:dd:ee:ff"}]'
    refs = networks(text, "ns")
    assert refs == (
        NetworkRef(namespace="x", name="a", interface="net1"),
        NetworkRef(namespace="ns", name="b.c", ips=("10.0.0.9/24",), mac="aa:bb:cc:dd:ee:ff"),
    )
    assert interface_of(refs, 0) == "net1"
    assert interface_of(refs, 1) == "net2"


def test_m00037_networks_as_pretty_printed_json() -> None:
    text = json.dumps([{"name": "a"}, {"name": "b"}], indent=4)
    assert networks(text + "\n", "ns") == (
        NetworkRef(namespace="ns", name="a"),
        NetworkRef(namespace="ns", name="b"),
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"a"}',
        "[{}]",
        '[{"name":5}]',
        "[",
        '"a"',
        '[{"name":"a","interface":"a/b"}]',
        '[{"name":"a/b"}]',
    ],
)
def test_networks_as_json_that_are_wrong(text: str) -> None:
    assert message(networks(text, "ns"))


def test_default_network() -> None:
    assert default_network("kube-system/calico", "spiderpool") == NetworkRef(
        namespace="kube-system", name="calico"
    )
    assert default_network("calico", "spiderpool") == NetworkRef(namespace="spiderpool", name="calico")
    assert default_network(" ", "x") is None
    assert "default-network" in message(default_network("a,b", "x"))


def test_the_same_text_is_read_once() -> None:
    text = '{"ipv4":["cached-once"]}'
    assert notes.ippool(text) is notes.ippool(text)
