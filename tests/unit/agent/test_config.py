"""The network configuration: every form, every key that can be wrong, and no exception but our own."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.config import (
    VERSIONS,
    Ipam,
    Macvlan,
    Native,
    PassThrough,
    demand_check,
    envelope,
    link_of_network,
    parse,
    version_of,
)
from shared.errors import OrbweaverError

NATIVE: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "underlay",
    "type": "orbweaver",
    "cniType": "macvlan",
    "master": ["eth1"],
    "mtu": 0,
    "ippools": {"ipv4": ["v4"], "ipv6": ["v6"]},
}
CHAIN: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "chain",
    "type": "macvlan",
    "master": "eth1",
    "ipam": {"type": "spiderpool", "default_ipv4_ippool": ["a", "b*"], "clean_gateway": True},
}


def encoded(base: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({key: value for key, value in (base | changes).items() if value is not ...}).encode()


def refused(body: bytes, plugin: str = "orbweaver") -> OrbweaverError:
    with pytest.raises(OrbweaverError) as caught:
        parse(body, plugin)
    return caught.value


def test_native() -> None:
    assert parse(encoded(NATIVE, mtu=1400), "orbweaver") == Native(
        version="1.0.0",
        network="underlay",
        link=Macvlan(parent="eth1", mtu_bytes=1400),
        ipv4=("v4",),
        ipv6=("v6",),
    )


def test_native_with_the_block_of_a_spider_multus_config() -> None:
    block = {"master": "eth1", "mtu": 1400, "ippools": {"ipv4": ["v4"]}}
    body = encoded(NATIVE, master=..., mtu=..., ippools=..., macvlan=block)
    assert parse(body, "orbweaver") == Native(
        version="1.0.0", network="underlay", link=Macvlan(parent="eth1", mtu_bytes=1400), ipv4=("v4",)
    )


def test_a_reference_needs_nothing_else() -> None:
    body = encoded(NATIVE, cniType=..., master=..., ippools=..., network="kube-system/fast")
    assert parse(body, "orbweaver") == Native(
        version="1.0.0", network="underlay", reference="kube-system/fast"
    )


def test_nulls_are_absent() -> None:
    body = encoded(NATIVE, mtu=None, vlanID=None, bond=None, ippools={"ipv4": None}, macvlan=None)
    assert parse(body, "orbweaver") == Native(
        version="1.0.0", network="underlay", link=Macvlan(parent="eth1")
    )


@pytest.mark.parametrize("plugin", ["spiderpool", "orbweaver"])
@pytest.mark.parametrize("kind", ["spiderpool", "orbweaver"])
def test_address_management_of_another_plugin(plugin: str, kind: str) -> None:
    body = encoded(CHAIN, ipam=CHAIN["ipam"] | {"type": kind})
    assert parse(body, plugin) == Ipam(
        version="1.0.0", network="chain", ipv4=("a", "b*"), ipv6=(), clean_gateway=True
    )


@pytest.mark.parametrize("mode", ["disable", "disabled"])
def test_an_idle_coordinator_passes_the_result_on(mode: str) -> None:
    before = {"cniVersion": "1.0.0", "ips": [{"address": "10.6.0.9/16"}], "dns": {}}
    body = encoded(NATIVE, type="coordinator", mode=mode, prevResult=before)
    passed = parse(body, "coordinator")
    assert isinstance(passed, PassThrough)
    assert json.loads(passed.result) == before


def test_an_idle_ifacer_gives_an_empty_result() -> None:
    for interfaces in (["eth1"], ["eth1", "eth2"]):
        passed = parse(encoded(NATIVE, type="ifacer", interfaces=interfaces, vlanID=0), "ifacer")
        assert isinstance(passed, PassThrough)
        assert json.loads(passed.result) == {"cniVersion": "1.0.0"}


@pytest.mark.parametrize(
    ("body", "plugin", "code", "named"),
    [
        (b"", "orbweaver", 6, "empty"),
        (b'{"cniVersion":"1.0.0",\n"name":', "orbweaver", 6, "stdin"),
        (b'{"cniVersion":\n "1.0.0" x}', "orbweaver", 6, "line 2 column"),
        (b"[]", "orbweaver", 6, "object"),
        (b"\xff\xfe", "orbweaver", 6, "stdin"),
        (b'{"name":"\xff"}', "orbweaver", 6, "stdin"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "orbweaver", 6, "stdin"),
        (encoded(NATIVE, cniVersion="9.9.9"), "orbweaver", 1, "9.9.9"),
        (encoded(NATIVE, cniVersion="0.2.0", name=...), "orbweaver", 1, "0.2.0"),
        (encoded(NATIVE, cniVersion=...), "orbweaver", 1, "cniVersion"),
        (encoded(NATIVE, cniVersion=1), "orbweaver", 7, "cniVersion"),
        (encoded(NATIVE, name=...), "orbweaver", 7, "name"),
        (encoded(NATIVE, name="a/b"), "orbweaver", 7, "name"),
        (encoded(NATIVE, mtu="large"), "orbweaver", 7, "mtu"),
        (encoded(NATIVE, mtu=-1), "orbweaver", 7, "mtu"),
        (encoded(NATIVE, mtu=67), "orbweaver", 7, "mtu"),
        (encoded(NATIVE, mtu=2**40), "orbweaver", 7, "mtu"),
        (encoded(NATIVE, cniType="teleport"), "orbweaver", 7, "cniType"),
        (encoded(NATIVE, cniType=...), "orbweaver", 7, "cniType"),
        (encoded(NATIVE, master=...), "orbweaver", 7, "master"),
        (encoded(NATIVE, master=[]), "orbweaver", 7, "master"),
        (encoded(NATIVE, master=""), "orbweaver", 7, "master"),
        (encoded(NATIVE, master=["eth1", "eth2"]), "orbweaver", 7, "master"),
        (encoded(NATIVE, master=["../../x"]), "orbweaver", 7, "master"),
        (encoded(NATIVE, master=[1]), "orbweaver", 7, "master"),
        (encoded(NATIVE, vlanID=-1), "orbweaver", 7, "vlanID"),
        (encoded(NATIVE, vlanID=4095), "orbweaver", 7, "vlanID"),
        (encoded(NATIVE, ippools={"ipv4": [1]}), "orbweaver", 7, "ippools.ipv4"),
        (encoded(NATIVE, network="no-namespace"), "orbweaver", 7, "network"),
        (encoded(NATIVE, network="a/b/c"), "orbweaver", 7, "network"),
        (encoded(CHAIN, ipam={"type": "host-local"}), "spiderpool", 7, "ipam.type"),
        (encoded(CHAIN, ipam=...), "spiderpool", 7, "ipam.type"),
        (
            encoded(CHAIN, ipam={"type": "spiderpool", "default_ipv4_ippool": 1}),
            "spiderpool",
            7,
            "default_ipv4_ippool",
        ),
        (encoded(NATIVE, cniType="ipvlan"), "orbweaver", 119, "ipvlan"),
        (encoded(NATIVE, vlanID=100), "orbweaver", 119, "vlanID"),
        (encoded(NATIVE, master=["a", "b"], bond={"name": "b0"}), "orbweaver", 119, "bond"),
        (encoded(NATIVE, disableIPAM=True), "orbweaver", 119, "disableIPAM"),
        (
            encoded(NATIVE, mastr="eth1"),
            "orbweaver",
            7,
            "mastr: is not a key of the native form; is it 'master'?",
        ),
        (encoded(NATIVE, mtuu=1400), "orbweaver", 7, "is it 'mtu'?"),
        (encoded(NATIVE, ipPools={}), "orbweaver", 7, "is it 'ippools'?"),
        (b'{"cniVersion":"1.1.0","name":"c","":{"\xe9":""}}', "orbweaver", 6, "stdin"),
        (encoded(NATIVE, zzz=1), "orbweaver", 7, "zzz: is not a key of the native form; known are"),
        (encoded(NATIVE, macvlan={"mastr": "eth1"}), "orbweaver", 7, "macvlan.mastr"),
        (encoded(NATIVE, ippools={"ipv5": ["v5"]}), "orbweaver", 7, "ippools.ipv5"),
        (encoded(NATIVE, macvlan={"ippools": {"v4": []}}), "orbweaver", 7, "macvlan.ippools.v4"),
        (encoded(NATIVE, ipam={"type": "host-local"}), "orbweaver", 7, "name the pools in `ippools`"),
        (encoded(NATIVE, ipam={}), "orbweaver", 7, "ipam"),
        (encoded(NATIVE, runtimeConfig={"ips": ["10.6.0.9/16"]}), "orbweaver", 119, "runtimeConfig.ips"),
        (encoded(NATIVE, runtimeConfig={"mac": "02:00:00:00:00:01"}), "orbweaver", 119, "runtimeConfig.mac"),
        (encoded(CHAIN, runtimeConfig={"ips": ["10.6.0.9/16"]}), "spiderpool", 119, "runtimeConfig.ips"),
        (encoded(NATIVE, type="coordinator"), "coordinator", 119, "coordinator"),
        (encoded(NATIVE, type="coordinator", mode="auto"), "coordinator", 119, "coordinator"),
        (encoded(NATIVE, type="coordinator", mode="disable"), "coordinator", 7, "prevResult"),
        (encoded(NATIVE, type="ifacer"), "ifacer", 7, "interfaces"),
        (encoded(NATIVE, type="ifacer", interfaces=["a"], vlanID=7), "ifacer", 119, "vlanID"),
        (encoded(NATIVE, type="ifacer", interfaces=["a", "b"], bond={"name": "b"}), "ifacer", 119, "bond"),
        (
            encoded(CHAIN, ipam={"type": "spiderpool", "match_master_subnet": True}),
            "spiderpool",
            119,
            "match_master",
        ),
    ],
)
def test_what_is_wrong_has_its_code_and_names_the_key(
    body: bytes, plugin: str, code: int, named: str
) -> None:
    error = refused(body, plugin)
    assert error.kind.code == code, error.message
    assert named in error.message


def test_keys_of_the_specification_and_of_runtimes_are_let_pass() -> None:
    others = {
        "args": {"labels": []},
        "runtimeConfig": {"ips": [], "mac": "", "portMappings": [{"hostPort": 80}]},
        "prevResult": {},
        "ipMasq": False,
        "dns": {},
        "capabilities": {"mac": True},
        "disableCheck": True,
        "cni.dev/valid-attachments": [],
        "ipam": None,
    }
    assert parse(encoded(NATIVE, **others), "orbweaver") == parse(encoded(NATIVE), "orbweaver")
    mac = {"mac": "02:00:00:00:00:01"}
    assert isinstance(parse(encoded(CHAIN, runtimeConfig=mac, promiscMode=True), "spiderpool"), Ipam)


@pytest.mark.parametrize("version", VERSIONS)
def test_check_is_of_0_4_0(version: str) -> None:
    if version.startswith("0.3."):
        with pytest.raises(OrbweaverError, match="has no CHECK") as caught:
            demand_check(version)
        assert caught.value.kind.code == 1
    else:
        demand_check(version)


def test_a_network_definition() -> None:
    spec = {"cniType": "macvlan", "macvlan": {"master": ["eth1"], "mtu": 1400}, "enableCoordinator": True}
    assert link_of_network("ns/a", json.dumps(spec)) == Macvlan(parent="eth1", mtu_bytes=1400)
    with pytest.raises(OrbweaverError, match="ns/a") as caught:
        link_of_network("ns/a", json.dumps(spec | {"cniType": "sriov"}))
    assert caught.value.kind.code == 119


def test_the_envelope_tells_no_list_from_an_empty_one() -> None:
    assert envelope(encoded(NATIVE)).valid is None
    assert envelope(encoded(NATIVE, **{"cni.dev/valid-attachments": []})).valid == frozenset()
    listed = [{"containerID": "c1", "ifname": "eth0"}]
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        assert envelope(encoded(NATIVE, **{key: listed})).valid == frozenset({("c1", "eth0")})
    with pytest.raises(OrbweaverError, match="valid-attachments") as caught:
        envelope(encoded(NATIVE, **{"cni.dev/valid-attachments": [{"containerID": 1}]}))
    assert caught.value.kind.code == 7


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_of_an_answer(version: str) -> None:
    assert version_of(encoded(NATIVE, cniVersion=version, mtu="large")) == version
    assert version_of(encoded(NATIVE, cniVersion="7")) == version_of(b"\xff") == version_of(b"[]") == "1.0.0"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        *NATIVE,
        "macvlan",
        "vlanID",
        "bond",
        "network",
        "ipam",
        "mode",
        "interfaces",
        "prevResult",
        "disableIPAM",
    ]
)
PLUGINS = st.sampled_from(["orbweaver", "spiderpool", "coordinator", "ifacer", "", "else"])


@given(st.dictionaries(KEYS, JSON, max_size=4), PLUGINS, st.sampled_from([NATIVE, CHAIN, {}]))
def test_no_object_raises_anything_else(changes: dict[str, Any], plugin: str, base: dict[str, Any]) -> None:
    body = msgspec.json.encode(base | changes)
    for reader in (lambda: parse(body, plugin), lambda: envelope(body)):
        try:
            reader()
        except OrbweaverError as error:
            assert error.message


@given(st.binary(max_size=60) | st.integers(0, 200).map(lambda cut: encoded(NATIVE)[:cut]), PLUGINS)
def test_no_bytes_raise_anything_else(body: bytes, plugin: str) -> None:
    version_of(body)
    with pytest.raises(OrbweaverError):
        parse(body, plugin)
        raise OrbweaverError("internal", "it may be whole by chance")
