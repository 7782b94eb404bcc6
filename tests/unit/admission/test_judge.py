"""Sets of manifests: what each object is judged against, in which order, and what is shown."""

from __future__ import annotations

from typing import Any

import yaml

from shared.admission.judge import Judgement, judge_deletion, judge_files, report
from shared.admission.view import Objects
from shared.manifests.document import ObjectKey, parse
from tests.unit.admission.objects import Json, conf, having, multus, pod, pool, subnet


def judged(*objects: Json, stored: Objects | None = None) -> list[Judgement]:
    text = "---\n".join(yaml.safe_dump(one) for one in objects)
    return judge_files([parse(text, "f.yaml")], stored or Objects())


def valid(judgements: list[Judgement]) -> list[bool]:
    return [one.valid for one in judgements]


def test_one_object_is_shown_as_one_and_several_as_a_list() -> None:
    one: Any = report(judged(pool(ips=["x"])))
    assert one == {
        "valid": False,
        "object": "SpiderIPPool/a",
        "errors": [
            {
                "field": "spec.ips[0]",
                "code": "Invalid",
                "message": "invalid IP range format in IPv4 'x': invalid IP address: 'x'",
                "file": "f.yaml",
                "line": 7,
            }
        ],
        "warnings": [],
    }
    two: Any = report(judged(pool(), multus()))
    assert [entry["object"] for entry in two] == ["SpiderIPPool/a", "SpiderMultusConfig/x/m"]


def test_paths_are_those_of_the_text_although_ranges_are_merged() -> None:
    (one,) = judged(pool(ips=["10.7.0.1", "10.6.0.9", "10.6.0.2"]))
    assert [(error.field, error.line) for error in one.errors] == [("spec.ips[0]", 7)]


def test_of_two_new_pools_that_overlap_the_later_is_refused() -> None:
    assert valid(judged(pool(ips=["10.6.0.1"]), pool("b", ips=["10.6.0.1"]))) == [True, False]


def test_a_range_may_move_between_pools_in_one_set() -> None:
    stored = having(pool(ips=["10.6.0.1-10.6.0.9"]), pool("b", ips=["10.6.0.20"]))
    moved = (pool("b", ips=["10.6.0.9", "10.6.0.20"]), pool(ips=["10.6.0.1-10.6.0.8"]))
    assert valid(judged(*moved, stored=stored)) == [True, True]


def test_what_did_not_change_is_not_blamed() -> None:
    stored = having(pool("b", ips=["10.6.0.1"]))
    judgements = judged(pool(ips=["10.6.0.1"]), pool("b", ips=["10.6.0.1"]), stored=stored)
    assert valid(judgements) == [False, True]
    assert [one.operation for one in judgements] == ["CREATE", "UPDATE"]


def test_a_refused_object_leaves_its_stored_form_in_force() -> None:
    stored = having(pool(ips=["10.6.0.1"]))
    judgements = judged(pool(ips=["10.6.0.1"], gateway="x"), pool("b", ips=["10.6.0.1"]), stored=stored)
    assert valid(judgements) == [False, False]


def test_settings_and_subnets_of_the_set_count_wherever_they_stand() -> None:
    set_ = (
        pod(**{"ipam.spidernet.io__ippool": '{"ipv4":["a"]}'}),
        pool(ips=["10.6.0.10"]),
        subnet(ips=["10.6.0.10"], gateway="10.6.0.1"),
        conf("enableIPv6: false"),
        pool("six", subnet="fd00::/64"),
    )
    judgements = judged(*set_)
    assert valid(judgements) == [True, True, True, True, False]
    assert judgements[0].warnings == ()
    admitted = judgements[1].admitted
    assert admitted is not None and admitted["spec"]["gateway"] == "10.6.0.1"


def test_one_object_in_two_files() -> None:
    text = yaml.safe_dump(pool())
    judgements = judge_files([parse(text, "f.yaml"), parse(text, "g.yaml")], Objects())
    assert valid(judgements) == [True, False]
    assert "also stands at f.yaml:1" in judgements[1].errors[0].message


def test_form_and_rules_are_told_in_one_report() -> None:
    text = yaml.safe_dump(pool(ips=[5])) + "---\n[\n---\n" + yaml.safe_dump(pool("b", gateway="x"))
    judgements = judge_files([parse(text, "f.yaml")], Objects())
    assert [(one.object, one.valid) for one in judgements] == [
        ("", False),
        ("SpiderIPPool/a", False),
        ("SpiderIPPool/b", False),
    ]
    assert all(error.line for one in judgements for error in one.errors)


def test_unknown_fields_are_warned_of() -> None:
    (one,) = judged(pool(vlan=5))
    assert one.valid
    assert one.warnings[0].field == "spec.vlan"


def test_the_status_of_what_is_stored_goes_on() -> None:
    old = pool(ips=["10.6.0.1"])
    old["status"] = {"allocatedIPs": '{"10.6.0.1":{"pod":"x/p"}}'}
    (one,) = judged(pool(ips=["10.6.0.2"]), stored=having(old))
    assert "10.6.0.1 that is being used by Pod x/p" in one.errors[0].message


def test_the_store_that_was_given_is_not_changed() -> None:
    stored = having(pool(ips=["10.6.0.1"]))
    judged(pool(ips=["10.6.0.2"]), pool("b"), stored=stored)
    assert len(stored) == 1
    kept = stored.pool("a")
    assert kept is not None and kept.spec.ips == ("10.6.0.1",)


def test_deletion() -> None:
    key = ObjectKey("SpiderIPPool", "", "a")
    assert judge_deletion(key, having(pool())).valid
    missing = judge_deletion(key, Objects())
    assert missing.status == 404
    assert not missing.valid
    protected = having(
        conf("enableValidatingResourcesDeletedWebhook: true"), pool(), leases={"a": {"10.6.0.1": "x/p"}}
    )
    denied = judge_deletion(key, protected)
    assert denied.status == 403
    assert denied.to_json()["errors"][0]["code"] == "Forbidden"


def fields(text: str, stored: Objects | None = None) -> list[tuple[str, int]]:
    (one,) = judge_files([parse(text, "f.yaml")], stored or Objects())
    assert not one.valid and one.admitted is None
    return sorted((error.field, error.line) for error in one.errors)


def test_wrong_types_do_not_hide_what_the_rules_say() -> None:
    text = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: Not_A_Name
  labels: {"a b": c}
spec:
  subnet: 10.6.0.0/16
  ipVersion: "4"
  ips: [10.6.0.5, 17, 10.7.0.1]
  gateway: 10.8.0.1
  disable: maybe
  podAffinity: {matchLabels: {app: 5}}
"""
    assert fields(text) == [
        ("metadata.labels[a b]", 5),
        ("metadata.name", 4),
        ("spec.disable", 11),
        ("spec.gateway", 10),
        ("spec.ipVersion", 8),
        ("spec.ips[1]", 9),
        ("spec.ips[2]", 9),
        ("spec.podAffinity.matchLabels[app]", 12),
    ]


def test_a_wrong_version_does_not_hide_gateway_and_routes() -> None:
    for version, more in ((5, []), (4, [("spec.subnet", 5)])):
        text = f"""\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {{name: a}}
spec:
  subnet: fd00::/64
  ipVersion: {version}
  ips: ["fd00::5"]
  gateway: fd01::1
  routes: [{{dst: "::/0", gw: "fd00::9"}}]
"""
        wrong = [("spec.ipVersion", 6)] if version == 5 else []
        assert fields(text) == sorted([("spec.gateway", 8), *wrong, ("spec.routes[0].dst", 9), *more])


def test_all_that_is_wrong_with_settings_has_its_own_line() -> None:
    text = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: spiderpool-conf, namespace: kube-system}
data:
  conf.yml: |
    enableIPv4: perhaps

    iaasNetworkProvider:
      serverUrl: nowhere
      httpRequestTimeout: soon
    clusterSubnetDefaultFlexibleIPNumber: -1
"""
    root = "data[conf.yml]"
    assert fields(text) == [
        (f"{root}.clusterSubnetDefaultFlexibleIPNumber", 11),
        (f"{root}.enableIPv4", 6),
        (f"{root}.iaasNetworkProvider.httpRequestTimeout", 10),
        (f"{root}.iaasNetworkProvider.serverUrl", 9),
    ]


def test_several_mistakes_of_metadata() -> None:
    text = """\
apiVersion: v1
kind: Pod
metadata:
  namespace: Not_One
  labels: {a: 5, "b c": d}
  annotations: {"d e": f}
"""
    assert [field for field, _ in fields(text)] == [
        "metadata.annotations[d e]",
        "metadata.labels[a]",
        "metadata.labels[b c]",
        "metadata.name",
        "metadata.namespace",
    ]


def test_settings_without_effect_are_warned_of() -> None:
    (one,) = judged(conf("enableGatewayDetection: true\nenableIPConflictDetection: true"))
    assert one.valid
    assert [warning.field for warning in one.warnings] == [
        "data[conf.yml].enableGatewayDetection",
        "data[conf.yml].enableIPConflictDetection",
    ]


def test_a_bad_annotation_is_refused_although_a_folder_has_it_stored() -> None:
    bad = pod(**{"ipam.spidernet.io__ippool": "garbage"})
    (one,) = judged(bad, stored=having(bad))
    assert (one.operation, one.valid) == ("UPDATE", False)


def test_a_wrong_version_of_a_reservation_does_not_hide_its_ranges() -> None:
    text = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderReservedIP
metadata: {name: r}
spec:
  ipVersion: 5
  ips: ["10.6.0.1", x]
"""
    assert fields(text) == [("spec.ipVersion", 5), ("spec.ips[1]", 6)]


def test_of_two_changed_pools_of_a_set_one_does_not_get_what_the_other_keeps() -> None:
    """In whichever order they stand, and although each is judged while the other is not in the view."""
    stored = having(pool(ips=["10.6.0.1-10.6.0.9"]), pool("b", ips=["10.6.0.20"]))
    kept = pool(ips=["10.6.0.1-10.6.0.8"], disable=True)
    taking = pool("b", ips=["10.6.0.5", "10.6.0.20"])
    assert sorted(valid(judged(kept, taking, stored=stored))) == [False, True]
    assert sorted(valid(judged(taking, kept, stored=stored))) == [False, True]
