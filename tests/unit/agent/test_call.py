"""The CNI call from headers: the table of variables, all problems at once, and never an unexpected exception."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.call import Call, ForeignMessageError, Pod, decode
from shared import limits
from shared.errors import OrbweaverError

NOW_NS = 5_000_000_000_000
ATTEMPT = "0123456789abcdef" * 2


def headers(verb: str = "ADD", **changes: str | None) -> dict[str, str]:
    whole: dict[str, str | None] = {
        "Orb-Version": "1",
        "Orb-Name": "orbweaver",
        "Orb-Attempt": ATTEMPT,
        "Orb-Start-Ns": str(NOW_NS - 7_000_000),
        "Orb-Deadline-Ns": str(NOW_NS + 60_000_000_000),
        "Cni-Command": verb,
        "Cni-Containerid": "c1",
        "Cni-Netns": "/run/netns/p1",
        "Cni-Ifname": "eth0",
    }
    renamed = {key.replace("_", "-"): value for key, value in changes.items()}
    return {key: value for key, value in (whole | renamed).items() if value is not None}


def refused(given_headers: dict[str, str], body: bytes = b"{}") -> OrbweaverError:
    with pytest.raises(OrbweaverError) as caught:
        decode(given_headers, body, NOW_NS)
    return caught.value


def test_a_call() -> None:
    call = decode(headers(), b"{}", NOW_NS)
    assert call == Call(
        verb="ADD",
        name="orbweaver",
        attempt=ATTEMPT,
        start_ns=NOW_NS - 7_000_000,
        deadline_ns=NOW_NS + 60_000_000_000,
        body=b"{}",
        container_id="c1",
        ifname="eth0",
        netns="/run/netns/p1",
    )


@pytest.mark.parametrize(
    ("verb", "required"),
    [
        ("ADD", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}),
        ("CHECK", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}),
        ("DEL", {"CNI_CONTAINERID", "CNI_IFNAME"}),
        ("GC", set[str]()),
        ("STATUS", set[str]()),
        ("VERSION", set[str]()),
    ],
)
def test_all_that_is_missing_is_named_at_once(verb: str, required: set[str]) -> None:
    bare = headers(verb, Cni_Containerid=None, Cni_Netns=None, Cni_Ifname=None)
    if not required:
        assert decode(bare, b"", NOW_NS).verb == verb
        return
    error = refused(bare)
    assert error.kind.code == 4
    assert {
        name for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME") if name in error.message
    } == required


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("Cni_Containerid", "../../etc/passwd"),
        ("Cni_Containerid", "-x"),
        ("Cni_Containerid", "a" * 256),
        ("Cni_Containerid", "a%20b"),
        ("Cni_Containerid", "a%0A"),
        ("Cni_Containerid", "%ff"),
        ("Cni_Ifname", "."),
        ("Cni_Ifname", ".."),
        ("Cni_Ifname", "a/b"),
        ("Cni_Ifname", "a:b"),
        ("Cni_Ifname", "a%09b"),
        ("Cni_Ifname", "a%20b"),
        ("Cni_Ifname", "sixteen-bytes-xx"),
        ("Cni_Ifname", "%C3%A4" * 8),
        ("Cni_Netns", "relative/path"),
        ("Cni_Netns", "/proc/self/ns/net"),
        ("Cni_Netns", "/proc/thread-self/ns/net"),
        ("Cni_Netns", "/run/%00"),
        ("Cni_Args", "garbage"),
        ("Cni_Args", "A=1;garbage;B=2"),
        ("Cni_Command", "EXPLODE"),
        ("Cni_Command", "add"),
        ("Cni_Command", None),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str | None) -> None:
    error = refused(headers(**{variable: value}))
    assert error.kind.code == 4
    assert variable.upper() in error.message


def test_values_that_are_allowed() -> None:
    call = decode(
        headers(Cni_Containerid="a" * 255, Cni_Ifname="fifteen-bytes-x", Cni_Args="%41=1;;X=y=z;"),
        b"",
        NOW_NS,
    )
    assert len(call.container_id) == 255
    assert call.ifname == "fifteen-bytes-x"
    assert decode(headers(Cni_Ifname="%C3%A4"), b"", NOW_NS).ifname == "ä"


def test_a_del_minds_only_what_it_needs() -> None:
    call = decode(headers("DEL", Cni_Netns="/proc/self/ns/net", Cni_Args="garbage"), b"\xff", NOW_NS)
    assert call.netns == "/proc/self/ns/net"


def test_the_pod_of_kubelet_and_the_name_of_podman() -> None:
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1"
    assert decode(headers(Cni_Args=arguments), b"", NOW_NS).pod == Pod(
        namespace="shop", name="web-1", uid="u1"
    )
    assert decode(headers(Cni_Args="K8S_POD_NAME=nice_name"), b"", NOW_NS).pod == Pod()
    assert decode(headers(Cni_Args="K8S_POD_NAMESPACE=;K8S_POD_NAME=nice_name"), b"", NOW_NS).pod == Pod()


@pytest.mark.parametrize("arguments", ["K8S_POD_NAMESPACE=shop", "K8S_POD_NAME=;K8S_POD_NAMESPACE=shop"])
def test_a_pods_namespace_without_its_name_is_no_container_without_a_pod(arguments: str) -> None:
    error = refused(headers(Cni_Args=arguments))
    assert error.kind.code == 4
    assert "K8S_POD_NAME is missing" in error.message
    assert decode(headers("DEL", Cni_Args=arguments), b"", NOW_NS).pod == Pod()


@pytest.mark.parametrize("changes", [{"Orb_Version": "2"}, {"Orb_Version": None}, {"Orb_Attempt": "short"}])
def test_a_message_of_somebody_else(changes: dict[str, Any]) -> None:
    assert isinstance(refused(headers(**changes)), ForeignMessageError)


@pytest.mark.parametrize("start", ["", "-1", "abc", "0", str(NOW_NS + 1), "9" * 30])
def test_a_start_that_cannot_be_true_is_now(start: str) -> None:
    assert decode(headers(Orb_Start_Ns=start), b"", NOW_NS).start_ns == NOW_NS


@pytest.mark.parametrize("deadline", ["", "abc", "1", str(NOW_NS * 2)])
def test_a_deadline_that_cannot_be_true_is_the_verbs_own(deadline: str) -> None:
    expected = NOW_NS + int(limits.ADD_DEADLINE_S * 1e9)
    assert decode(headers(Orb_Deadline_Ns=deadline), b"", NOW_NS).deadline_ns == expected


def test_a_body_above_the_limit() -> None:
    assert refused(headers(), b" " * (limits.CNI_BODY_MAX_BYTES + 1)).kind.code == 6


TEXT = st.text(alphabet=string.printable + "äß\x00\x7f%", max_size=40)


@given(
    st.dictionaries(
        st.sampled_from([*headers(), "Cni-Args", "Cni-Path"]),
        st.one_of(TEXT, st.sampled_from(["ADD", "DEL", "GC", "1", ATTEMPT])),
    ),
    st.booleans(),
)
def test_no_header_raises_anything_else(changes: dict[str, str], on_top: bool) -> None:
    try:
        call = decode(headers() | changes if on_top else changes, b"", NOW_NS)
    except OrbweaverError as error:
        assert error.message
    else:
        assert call.start_ns <= NOW_NS
