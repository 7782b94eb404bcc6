"""The CRDs in a real API server: what it takes, what it refuses, what it fills in and prints, without any webhook."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deploy.generate import HERE
from shared.admission.rules import mutate, validate
from shared.admission.view import Objects
from shared.manifests.crd.definition import definitions
from shared.manifests.kinds import BY_KIND
from tests.cluster.admission.conftest import eventually
from tests.cluster.admission.crd_case import (
    ACCEPTED,
    BASES,
    CEL_CASES,
    DELETE,
    Case,
    Json,
    path_of,
    places,
    put,
    schema_of,
    violations,
)
from tests.property.admission.strategies import anything, valid_pool
from tests.support.kube import ApiServer
from tests.support.kube_client import ApiError, Client

GROUP = "/apis/spiderpool.spidernet.io/v2beta1"
VIOLATIONS = tuple(violations())


@pytest.fixture(scope="session")
def crds(api_server: ApiServer) -> ApiServer:
    """A server that has the CRDs, as `kubectl apply -k` brings them."""
    api_server.kubectl("apply", "-k", str(HERE / "crds"))
    api_server.kubectl("apply", "-k", str(HERE / "crds" / "multus"))
    api_server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return api_server


@pytest.fixture
def client(crds: ApiServer) -> Client:
    return crds.client


def collection(kind: str) -> str:
    row = BY_KIND[kind]
    return f"{GROUP}/namespaces/default/{row.plural}" if row.namespaced else f"{GROUP}/{row.plural}"


def tried(client: Client, raw: Json) -> Json:
    """What would be stored. Raises ApiError."""
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return client.request("POST", collection(raw["kind"]), raw, query=query)


@pytest.mark.parametrize("base", BASES)
def test_an_object_with_every_member_is_taken_whole(client: Client, base: str) -> None:
    stored = tried(client, BASES[base])
    for member in ("spec", "status"):
        if member in BASES[base] and not (member == "status" and _has_status_subresource(stored["kind"])):
            assert stored[member] == {**BASES[base][member], **_defaults(stored, member)}


def _has_status_subresource(kind: str) -> bool:
    return kind in ("SpiderIPPool", "SpiderSubnet", "SpiderCoordinator")


def _defaults(stored: Json, member: str) -> Json:
    return {key: stored[member][key] for key in ("disableIPAM", "enableCoordinator") if key in stored[member]}


@pytest.mark.parametrize("label", ACCEPTED)
def test_taken(client: Client, label: str) -> None:
    tried(client, ACCEPTED[label])


def refused(client: Client, case: Case) -> None:
    with pytest.raises(ApiError) as info:
        tried(client, case.object())
    assert info.value.status in (400, 422)
    said = str(info.value)
    assert case.field in said and case.sentence in said, said


@pytest.mark.parametrize("case", VIOLATIONS, ids=[case.label for case in VIOLATIONS])
def test_each_keyword_refuses(client: Client, case: Case) -> None:
    if "status" in case.at and _has_status_subresource(BASES[case.base]["kind"]):
        return refused_as_status(client, case)
    return refused(client, case)


def refused_as_status(client: Client, case: Case) -> None:
    """The status of these kinds is written by its subresource alone; elsewhere it is dropped, whatever it says."""
    raw = BASES[case.base]
    path = f"{collection(raw['kind'])}/{raw['metadata']['name']}"
    created = client.create(collection(raw["kind"]), raw)
    try:
        broken = {**case.object(), "metadata": created["metadata"], "spec": created["spec"]}
        with pytest.raises(ApiError) as info:
            client.replace(f"{path}/status", broken)
        assert case.field in str(info.value) and case.sentence in str(info.value)
    finally:
        client.delete(path)


@pytest.mark.parametrize("case", CEL_CASES, ids=[case.label for case in CEL_CASES])
def test_each_cel_rule_refuses(client: Client, case: Case) -> None:
    refused(client, case)


TRANSITIONS = (
    ("SpiderIPPool", "subnet", "172.18.40.0/23", "spec.subnet"),
    ("SpiderSubnet", "subnet", "172.18.40.0/23", "spec.subnet"),
    ("SpiderIPPool", "ipVersion", 6, "spec.ipVersion"),
    ("SpiderSubnet", "ipVersion", 6, "spec.ipVersion"),
    ("SpiderReservedIP", "ipVersion", 4, "spec.ipVersion"),
)


@pytest.mark.parametrize(("kind", "member", "value", "field"), TRANSITIONS)
def test_what_may_not_change(client: Client, kind: str, member: str, value: Any, field: str) -> None:
    path = f"{collection(kind)}/a"
    client.create(collection(kind), BASES[kind])
    try:
        with pytest.raises(ApiError, match="is not changeable") as info:
            client.patch(path, {"spec": {member: value}})
        assert info.value.status == 422 and field in str(info.value) and "Forbidden" in str(info.value)
        client.patch(path, {"spec": {member: BASES[kind]["spec"][member]}})
    finally:
        client.delete(path)


def _cel_rules() -> Iterator[tuple[str, str]]:
    """Where each CEL rule of each kind speaks, and its sentence."""
    seen: set[tuple[str, str]] = set()
    for raw in BASES.values():
        for schema, at in places(schema_of(raw["kind"]), raw):
            for rule in schema.get("x-kubernetes-validations", ()):
                mark = f"{raw['kind']}: {path_of(at)}{rule.get('fieldPath', '')}".replace("[0]", "[]")
                if "oldSelf" not in rule["rule"] and (mark, rule["message"]) not in seen:
                    seen.add((mark, rule["message"]))
                    yield mark, rule["message"]


def test_every_cel_rule_has_a_case() -> None:
    cases: dict[str, set[str]] = {}
    for case in CEL_CASES:
        mark = f"{BASES[case.base]['kind']}: {case.field}".replace("[0]", "[]").replace("[1]", "[]")
        cases.setdefault(mark, set()).add(case.sentence)
    for mark, message in _cel_rules():
        start = " ".join(message.split()[:2])
        assert any(start in one or one in message for one in cases.get(mark, ())), (mark, message)


def test_defaults_are_those_of_the_specification(client: Client) -> None:
    pool = tried(client, {**ACCEPTED["a pool with its subnet alone"]})
    assert pool["spec"] == {"subnet": "10.6.0.0/16", "default": False, "disable": False}
    empty = tried(client, ACCEPTED["a custom configuration of nothing"])
    assert empty["spec"] == {"cniType": "custom", "enableCoordinator": True, "disableIPAM": False}
    coordinator = tried(client, ACCEPTED["a coordinator"])
    assert coordinator["spec"] == {
        "podCIDRType": "auto",
        "mode": "auto",
        "tunePodRoutes": True,
        "hostRuleTable": 500,
        "podRPFilter": 0,
        "txQueueLen": 0,
        "podMACPrefix": "",
        "podDefaultRouteNIC": "",
        "vethLinkAddress": "",
    }
    vlan = tried(
        client, {**BASES["vlan"], "spec": {"cniType": "vlan", "vlan": {"master": ["e"], "ippools": {}}}}
    )
    assert vlan["spec"]["vlan"] == {
        "master": ["e"],
        "mtu": 0,
        "vlanMode": "manual",
        "ippools": {"matchMasterSubnet": False},
    }
    ib = tried(
        client, {**BASES["ibsriov"], "spec": {"cniType": "ib-sriov", "ibsriov": {"resourceName": "r"}}}
    )
    assert ib["spec"]["ibsriov"] == {
        "resourceName": "r",
        "linkState": "enable",
        "rdmaIsolation": True,
        "enableIbKubernetes": False,
    }
    sriov = tried(client, {**BASES["sriov"], "spec": {"cniType": "sriov", "sriov": {"resourceName": "r"}}})
    assert sriov["spec"]["sriov"] == {"resourceName": "r", "mtu": 0, "rdmaIsolation": False}


def test_an_unknown_member_is_named_by_a_strict_client_and_pruned_for_others(client: Client) -> None:
    raw: Json = {**BASES["SpiderIPPool"], "spec": {**BASES["SpiderIPPool"]["spec"], "vlan": 5}}
    with pytest.raises(ApiError, match=r'unknown field "spec\.vlan"'):
        tried(client, raw)
    assert (
        "vlan" not in client.request("POST", collection("SpiderIPPool"), raw, query={"dryRun": "All"})["spec"]
    )


def test_status_is_a_subresource_where_the_specification_says_so(client: Client) -> None:
    for kind in ("SpiderIPPool", "SpiderSubnet", "SpiderCoordinator"):
        path = f"{collection(kind)}/a"
        assert "status" not in client.create(collection(kind), BASES[kind])
        whole = client.get(path)
        assert (
            client.replace(f"{path}/status", {**whole, "status": BASES[kind]["status"]})["status"]
            == BASES[kind]["status"]
        )
        client.delete(path)
    endpoint = client.create(collection("SpiderEndpoint"), BASES["SpiderEndpoint"])
    assert endpoint["status"] == BASES["SpiderEndpoint"]["status"]
    with pytest.raises(ApiError) as info:
        client.get(f"{collection('SpiderEndpoint')}/a/status")
    assert info.value.status == 404
    client.delete(f"{collection('SpiderEndpoint')}/a")


@pytest.mark.parametrize(
    ("name", "wide", "columns"),
    [
        (
            "sp",
            True,
            "NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT DEFAULT DISABLE NODENAME MULTUSNAME APP-NAMESPACE",
        ),
        ("sp", False, "NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT DEFAULT"),
        ("ss", False, "NAME VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT"),
        ("sr", False, "NAME VERSION"),
        ("se", False, "NAME INTERFACE IPV4POOL IPV4 IPV6POOL IPV6 NODE"),
        ("smc", False, "NAME AGE"),
        ("scc", False, "NAME AGE"),
    ],
)
def test_columns(crds: ApiServer, name: str, wide: bool, columns: str) -> None:
    kind = {"sp": "SpiderIPPool", "ss": "SpiderSubnet", "sr": "SpiderReservedIP", "se": "SpiderEndpoint",
            "smc": "custom", "scc": "SpiderCoordinator"}[name]  # fmt: skip
    raw = json.loads(json.dumps(BASES[kind]))
    if kind == "SpiderIPPool":
        raw["spec"]["podAffinity"] = {"matchLabels": {"ipam.spidernet.io/app-namespace": "shop"}}
    path = f"{collection(raw['kind'])}/a"
    crds.client.create(collection(raw["kind"]), raw)
    try:
        head, row = crds.kubectl("get", name, *(["-o", "wide"] if wide else [])).splitlines()
        assert head.split() == columns.split()
        if wide:
            assert row.split() == [
                "a",
                "4",
                "172.18.40.0/24",
                "true",
                "true",
                '["n1"]',
                '["kube-system/macvlan"]',
                "shop",
            ]
        if name == "se":
            assert row.split() == ["a", "eth0", "v4", "10.6.0.12/16", "v6", "fd00::c/64", "n1"]
        assert path.rpartition("/")[2] in crds.kubectl("get", "spiderpool")
    finally:
        crds.client.delete(path)


def test_kubectl_explains_the_members(crds: ApiServer) -> None:
    said = crds.kubectl("explain", "spiderippool.spec.excludeIPs")
    assert "Addresses and ranges of `ips` that may not be given" in said


def test_a_network_attachment_definition_is_taken(crds: ApiServer) -> None:
    path = "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions"
    raw = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "a"},
        "spec": {"config": "{}"},
    }
    assert crds.client.create(path, raw)["spec"] == {"config": "{}"}
    assert "a" in crds.kubectl("get", "net-attach-def")
    crds.client.delete(f"{path}/a")


def _agree(client: Client, raw: Json) -> None:
    """Whatever our admission accepts, the API server does as well: it may know less, and never more."""
    if raw["kind"] == "SpiderEndpoint":
        return  # written by the system alone: no rule of ours judges it
    view = Objects()
    admitted = mutate(raw, view)
    verdict = validate("CREATE", admitted, None, view)
    if not verdict.valid:
        return
    try:
        client.request("POST", collection(raw["kind"]), admitted, query={"dryRun": "All"})
    except ApiError as error:
        pytest.fail(f"{admitted}: {error}")


_EXAMPLES = hypothesis_settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)


@_EXAMPLES
@given(valid_pool())
def test_the_api_server_takes_every_pool_that_admission_takes(client: Client, raw: Json) -> None:
    _agree(client, raw)


@_EXAMPLES
@given(anything())
def test_the_api_server_takes_whatever_admission_takes(client: Client, raw: Json) -> None:
    if (
        BY_KIND[raw["kind"]].ours
        and isinstance(raw.get("metadata"), dict)
        and set(raw["metadata"]) == {"name"}
    ):
        _agree(client, raw)


_ODD = st.sampled_from(
    [0, -1, 1, 4, 6, 7, 4095, 1 << 31, "", "a", "eth0", "10.6.0.1", "172.18.40.3", "172.18.40.9-172.18.40.1", "fd00::1",
     "fd00::/64", "10.0.0.0/8", "FD00::/64", "auto", "manual", "x/y", "a b", "*", "a[", True, False, None, [], {}, ["a"], ["a", "b"]]
)  # fmt: skip


@st.composite
def _spoilt(draw: st.DrawFn) -> Json:
    """An object with every member of its kind, of which a few are gone or something else now."""
    raw = copy.deepcopy(BASES[draw(st.sampled_from(sorted(BASES)))])
    for _ in range(draw(st.integers(1, 3))):
        spots = [at for _, at in places(schema_of(raw["kind"]), raw) if len(at) > 1 and at[0] == "spec"]
        if not spots:
            break
        at = draw(st.sampled_from(spots))
        put(raw, at, DELETE if draw(st.booleans()) else copy.deepcopy(draw(_ODD)))
    return raw


@_EXAMPLES
@given(_spoilt())
def test_the_api_server_takes_every_spoilt_object_that_admission_takes(client: Client, raw: Json) -> None:
    _agree(client, raw)


def test_what_spiderpool_stored_and_breaks_a_rule_of_ours_stays_usable(fresh_api_server: ApiServer) -> None:
    """Their schema knew less. Status, finalizers and labels go on; the member itself must be mended when the spec changes."""
    client = fresh_api_server.client
    theirs = copy.deepcopy(definitions()["spiderippools.spiderpool.spidernet.io"])
    version = theirs["spec"]["versions"][0]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    client.create(crds, theirs)
    fresh_api_server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    path = f"{GROUP}/spiderippools/old"
    spec = {"subnet": "10.6.0.0/24", "ipVersion": 4, "ips": ["10.7.0.1"], "gateway": "10.7.0.2"}
    raw = {
        **BASES["SpiderIPPool"],
        "metadata": {"name": "old", "finalizers": ["spiderpool.spidernet.io"]},
        "spec": spec,
    }
    eventually(lambda: client.create(f"{GROUP}/spiderippools", raw), "their pool is stored")

    fresh_api_server.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(HERE / "crds"))

    def refuses_new() -> bool:
        try:
            client.request(
                "POST", f"{GROUP}/spiderippools", {**raw, "metadata": {"name": "b"}}, query={"dryRun": "All"}
            )
        except ApiError as error:
            return error.status == 422
        return False

    eventually(refuses_new, "our rules hold for new pools")
    stored = client.get(path)
    client.replace(f"{path}/status", {**stored, "status": {"allocatedIPCount": 1, "totalIPCount": 1}})
    client.patch(path, {"metadata": {"labels": {"a": "b"}, "finalizers": None}})
    with pytest.raises(ApiError, match="not match base subnet"):
        client.patch(path, {"spec": {"disable": True}})
    client.patch(path, {"spec": {"disable": True, "ips": ["10.6.0.1"], "gateway": "10.6.0.2"}})
    client.delete(path)
    assert not client.exists(path)
