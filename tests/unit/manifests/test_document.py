"""Files of manifests: every object found, every mistake of form with file, line and field, all at once."""

from __future__ import annotations

import pytest

from shared.manifests import document
from shared.manifests.document import ObjectKey, parse
from shared.manifests.ipam import SpiderIPPool
from shared.manifests.problem import segments

POOL = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: a
spec:
  subnet: 10.6.0.0/16
  ips:
  - 10.6.0.10
  - 7
"""


def found(text: str) -> list[tuple[int, str, str]]:
    return [(one.line, one.field, one.code) for one in parse(text, "f.yaml").problems]


def test_an_object_with_the_line_of_each_field() -> None:
    (one,) = parse(POOL, "f.yaml").documents
    assert one.key == ObjectKey("SpiderIPPool", "", "a")
    assert str(one.key) == "SpiderIPPool/a"
    assert one.line == 1
    assert one.line_of("spec.ips[1]") == 9
    assert one.line_of("spec.ips[7]") == 7
    assert one.line_of("metadata.annotations[x]") == 3


def test_a_wrong_type_is_told_with_place_and_sentence() -> None:
    (problem,) = parse(POOL, "f.yaml").problems
    assert (problem.file, problem.line, problem.field, problem.code) == (
        "f.yaml",
        9,
        "spec.ips[1]",
        "TypeInvalid",
    )
    assert str(problem) == (
        "f.yaml:9: SpiderIPPool/a spec.ips[1]: must be a string (quote the value), not the number 7"
    )


def test_all_mistakes_at_once() -> None:
    text = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: A_b
  labels: {app: on}
  annotations: {count: 5}
spec:
  subnet: 5
  subnet: 6
  ips: 10.6.0.1
  default: "yes"
  routes:
  - dst: [a]
  podAffinity: []
"""
    assert found(text) == [
        (4, "metadata.name", "Invalid"),
        (5, "metadata.labels[app]", "TypeInvalid"),
        (6, "metadata.annotations[count]", "TypeInvalid"),
        (8, "spec.subnet", "Duplicate"),
        (8, "spec.subnet", "TypeInvalid"),
        (10, "spec.ips", "TypeInvalid"),
        (11, "spec.default", "TypeInvalid"),
        (13, "spec.routes[0].dst", "TypeInvalid"),
        (14, "spec.podAffinity", "TypeInvalid"),
    ]


def test_what_is_no_object() -> None:
    assert found("5\n") == [(1, "", "Unreadable")]
    assert found("- a\n") == [(1, "", "Unreadable")]
    assert found("a: 1\n") == [
        (1, "apiVersion", "Required"),
        (1, "kind", "Required"),
        (1, "metadata", "Required"),
        (1, "metadata.name", "Required"),
    ]
    assert found("apiVersion: v1\nkind: Pod\nmetadata: {}\n") == [(3, "metadata.name", "Required")]
    assert found("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\n") == [(3, "metadata.name", "Required")]


def test_a_list_and_several_documents() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: p, name: q}
- 5
---
apiVersion: v1
kind: PodList
items:
- {apiVersion: v1, kind: Pod, metadata: {name: r, namespace: x}}
"""
    file = parse(text, "f.yaml")
    assert [str(one.key) for one in file.documents if one.key.name] == ["Pod/default/p", "Pod/x/r"]
    assert [(one.line, one.field, one.code) for one in file.problems] == [
        (6, "metadata.name", "Duplicate"),
        (7, "", "Unreadable"),
    ]


def test_namespaces_as_the_api_server_stores_them() -> None:
    text = """\
{apiVersion: v1, kind: Pod, metadata: {name: p}}
---
{apiVersion: spiderpool.spidernet.io/v2beta1, kind: SpiderIPPool, metadata: {name: a, namespace: x}, spec: {subnet: 10.6.0.0/16}}
"""
    pod, pool = parse(text, "f").documents
    assert pod.raw["metadata"]["namespace"] == "default"
    assert pool.key.namespace == ""
    assert "namespace" not in pool.raw["metadata"]


def test_one_object_twice_in_a_file() -> None:
    assert found(POOL.replace("- 7", "- 10.6.0.12") + "---\n" + POOL.replace("- 7", "- 10.6.0.13")) == [
        (14, "metadata.name", "Duplicate")
    ]


def test_other_kinds_are_kept_whatever_they_hold() -> None:
    text = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'system:x'}\nrules: [5]\n"
    (one,) = parse(text, "f").documents
    assert one.raw["rules"] == [5]
    assert not parse(text, "f").problems
    assert one.kind is None
    foreign = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\n"
    assert parse(foreign, "f").documents[0].kind is None


def test_another_version_of_our_group_is_refused_and_its_unknown_kinds_are_kept() -> None:
    assert found(POOL.replace("v2beta1", "v1").replace("- 7", "- 10.6.0.7")) == [
        (1, "apiVersion", "NotSupported")
    ]
    claim = "apiVersion: spiderpool.spidernet.io/v2beta1\nkind: SpiderClaimParameter\nmetadata: {name: x}\n"
    assert found(claim) == []


def test_a_slip_in_kind_or_group_of_ours_is_seen() -> None:
    good = POOL.replace("- 7", "- 10.6.0.7")
    assert found(good.replace("spiderpool.spidernet.io/v2beta1", "v1")) == [(1, "apiVersion", "NotSupported")]
    (warning,) = parse(good.replace("SpiderIPPool", "SpiderIPool"), "f").warnings
    assert "did you mean SpiderIPPool?" in warning.message


def test_addresses_of_both_families_in_flow_form() -> None:
    flow = "apiVersion: spiderpool.spidernet.io/v2beta1\nkind: SpiderReservedIP\nmetadata: {name: r}\nspec: {ips: [fd00::1-fd00::5, fd00::9, 10.6.0.1-10.6.0.2]}\n"
    (one,) = parse(flow, "f").documents
    assert one.raw["spec"]["ips"] == ["fd00::1-fd00::5", "fd00::9", "10.6.0.1-10.6.0.2"]


def test_unknown_fields_are_warnings_with_a_hint() -> None:
    file = parse(
        POOL.replace("- 7", "- 10.6.0.7").replace("  ips:", "  vlan: 5\n  excludeIps: []\n  ips:"), "f"
    )
    assert not file.problems
    assert [(one.line, one.field, one.code) for one in file.warnings] == [
        (7, "spec.vlan", "Unknown"),
        (8, "spec.excludeIps", "Unknown"),
    ]
    assert "did you mean excludeIPs?" in file.warnings[1].message


def test_fields_of_older_releases_are_accepted_in_silence() -> None:
    text = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderCoordinator
metadata: {name: default}
spec: {detectGateway: false, detectIPConflict: true, hostRPFilter: 0}
"""
    file = parse(text, "f")
    assert not file.problems
    assert not file.warnings


def test_bytes_that_are_not_utf8() -> None:
    (problem,) = parse(b"a: 1\nb: \xff\n", "f").problems
    assert problem.line == 2
    assert "0xff" in problem.message


def test_null_members_count_as_absent() -> None:
    (one,) = parse(POOL.replace("- 7", "- 10.6.0.7") + "  gateway: null\n  routes:\n", "f").documents
    assert not one.errors
    pool = document.typed(one)
    assert isinstance(pool, SpiderIPPool)
    assert pool.spec.gateway == ""
    assert pool.spec.routes is None


@pytest.mark.parametrize(
    ("field", "steps"),
    [
        ("spec.ips[1]", ("spec", "ips", "1")),
        ("metadata.annotations[a.b/c-d]", ("metadata", "annotations", "a.b/c-d")),
        ("a[0][1].b", ("a", "0", "1", "b")),
        ("", ()),
        ("a[", ("a", "")),
    ],
)
def test_the_steps_of_a_path(field: str, steps: tuple[str, ...]) -> None:
    assert segments(field) == steps
