"""What comes into force of a folder, and what becomes of mistakes: the rules of a cluster, for files."""

from __future__ import annotations

import pytest

from services.controller.objects import Objects
from shared.contracts.facts import ObjectFact, ObjectGone
from shared.manifests.document import ObjectKey
from tests.support.folder import World, config, decoded, lease, pod, pool, subnet


def one_problem(world: World) -> tuple[str, int, str, str]:
    assert len(world.problems) == 1, world.problems
    found = world.problems[0]
    return found.file, found.line, found.object, found.field


def test_objects_look_as_an_api_server_would_store_them() -> None:
    world = World()
    (fact,) = world.look(a=pool("rack"))
    assert isinstance(fact, ObjectFact)
    raw = decoded(fact)
    assert raw["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
    assert raw["metadata"]["labels"]["ipam.spidernet.io/ippool-cidr"] == "10-6-0-0-16"
    assert raw["metadata"]["uid"] == fact.uid
    assert raw["metadata"]["resourceVersion"] == str(fact.version)
    assert raw["metadata"]["generation"] == 1
    assert raw["metadata"]["creationTimestamp"] == "2023-11-14T22:13:21Z"
    assert raw["spec"]["ipVersion"] == 4
    assert fact.source == "a.yaml:1"


def test_without_a_change_nothing_is_told() -> None:
    world = World()
    world.look(a=pool("rack") + "---\n" + pod("web-0"))
    assert world.look() == []
    world.look(a="# a comment\n" + pool("rack") + "---\n" + pod("web-0"))
    assert world.consumer.version == 1002


def test_a_change_of_spec_counts_generation_and_keeps_uid_and_birth() -> None:
    world = World()
    (before,) = world.look(a=pool("rack"))
    (after,) = world.look(a=pool("rack", ips="10.6.0.10-10.6.0.30"))
    assert isinstance(before, ObjectFact) and isinstance(after, ObjectFact)
    assert after.uid == before.uid and after.version > before.version
    assert decoded(after)["metadata"]["generation"] == 2
    assert decoded(after)["metadata"]["creationTimestamp"] == decoded(before)["metadata"]["creationTimestamp"]
    (labelled,) = world.look(
        a=pool("rack", ips="10.6.0.10-10.6.0.30").replace("name: rack", "name: rack, labels: {a: b}")
    )
    assert isinstance(labelled, ObjectFact)
    assert decoded(labelled)["metadata"]["generation"] == 2


def test_a_pod_without_uid_has_none_and_its_status_is_truth() -> None:
    world = World()
    (fact,) = world.look(a=pod("web-0") + "status: {phase: Succeeded}\n")
    assert isinstance(fact, ObjectFact)
    assert fact.uid == "" and "uid" not in decoded(fact)["metadata"]
    assert decoded(fact)["status"] == {"phase": "Succeeded"}
    terminating = (
        pod("web-0")
        .replace("uid", "uid")
        .replace("namespace: shop", 'namespace: shop, deletionTimestamp: "2026-01-01T00:00:00Z"')
    )
    (fact,) = world.look(a=terminating)
    assert isinstance(fact, ObjectFact)
    assert decoded(fact)["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"


def test_members_that_are_null_are_absent() -> None:
    world = World()
    (fact,) = world.look(a=pod("web-0").replace("nodeName: n1", "nodeName: n1, hostname: null") + "status:\n")
    assert isinstance(fact, ObjectFact)
    assert "status" not in decoded(fact) and decoded(fact)["spec"] == {"nodeName": "n1"}
    assert world.look() == []


def test_a_namespaced_object_without_namespace_is_in_default() -> None:
    world = World()
    world.look(a="apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
    assert world.names == {"Pod/default/p"}


def test_kinds_that_nobody_knows_are_kept_as_they_are() -> None:
    world = World()
    (fact,) = world.look(
        a="apiVersion: example.org/v3\nkind: Gadget\nmetadata: {name: G-1, namespace: x}\nparts: [1, 2]\n"
    )
    assert isinstance(fact, ObjectFact)
    assert decoded(fact)["parts"] == [1, 2]
    assert not world.problems


def test_a_deleted_file_is_a_tombstone_with_the_uid() -> None:
    world = World()
    world.look(a=pod("web-0", uid="u1"))
    (gone,) = world.look(a=None)
    assert gone == ObjectGone(kind="Pod", namespace="shop", name="web-0", uid="u1", version=1002)


def test_another_uid_under_the_name_is_another_object() -> None:
    world = World()
    world.look(a=pod("web-0", uid="u1"))
    gone, fact = world.look(a=pod("web-0", uid="u2"))
    assert isinstance(gone, ObjectGone) and gone.uid == "u1"
    assert isinstance(fact, ObjectFact) and fact.uid == "u2"
    assert decoded(fact)["metadata"]["generation"] == 1


def test_a_pod_that_gets_its_uid_later_is_the_same_pod() -> None:
    world = World()
    world.look(a=pod("web-0"))
    (fact,) = world.look(a=pod("web-0", uid="u1"))
    assert isinstance(fact, ObjectFact) and fact.uid == "u1"


def test_an_object_that_is_made_anew_has_another_uid() -> None:
    world = World()
    (first,) = world.look(a=subnet("s"))
    world.look(a=None)
    (second,) = world.look(a=subnet("s"))
    assert isinstance(first, ObjectFact) and isinstance(second, ObjectFact)
    assert first.uid != second.uid


class TestMistakes:
    def test_a_refused_object_leaves_its_last_good_version(self) -> None:
        world = World()
        world.look(a=pool("rack"))
        assert world.look(a=pool("rack", ips="10.7.0.1")) == []
        assert one_problem(world) == ("a.yaml", 6, "SpiderIPPool/rack", "spec.ips[0]")
        assert world.spec("SpiderIPPool", "rack")["ips"] == ["10.6.0.10-10.6.0.20"]
        world.look(a=pool("rack"))
        assert not world.problems

    def test_all_mistakes_are_told_at_once_and_the_others_come_into_force(self) -> None:
        world = World()
        world.look(a=pool("bad", ips="10.7.0.1, 10.8.0.1") + "---\n" + pod("web-0"))
        assert {one.field for one in world.problems} == {"spec.ips[0]", "spec.ips[1]"}
        assert world.names == {"Pod/shop/web-0"}

    def test_text_that_is_not_yaml_keeps_what_the_file_gave(self) -> None:
        world = World()
        world.look(a=pool("rack") + "---\n" + pod("web-0"))
        assert world.look(a=pool("rack") + "---\nkind: [unclosed\n") == []
        assert world.names == {"SpiderIPPool/rack", "Pod/shop/web-0"}
        (problem,) = world.problems
        assert problem.file == "a.yaml" and problem.line > 6

    def test_a_value_of_a_wrong_type_keeps_the_object(self) -> None:
        world = World()
        world.look(a=pool("rack"))
        assert world.look(a=pool("rack").replace("[10.6.0.10-10.6.0.20]", "7")) == []
        assert one_problem(world) == ("a.yaml", 6, "SpiderIPPool/rack", "spec.ips")

    def test_a_key_given_twice_keeps_the_object(self) -> None:
        world = World()
        world.look(a=pool("rack"))
        world.look(a=pool("rack") + "  ips: [10.6.0.99]\n")
        assert world.spec("SpiderIPPool", "rack")["ips"] == ["10.6.0.10-10.6.0.20"]
        assert world.problems

    def test_a_bad_file_at_the_start_of_a_new_process_still_keeps_what_it_gave(self) -> None:
        world = World()
        world.look(a=pool("rack"), b=pod("web-0"))
        world.texts["a.yaml"] = "kind: [unclosed"
        world.restart()
        assert world.look() == []
        assert world.names == {"SpiderIPPool/rack", "Pod/shop/web-0"}

    def test_an_unreadable_file_or_folder_takes_nothing_away(self) -> None:
        world = World()
        world.look(a=pool("rack"), b=pod("web-0"))
        world.unreadable = {"a.yaml": "Permission denied"}
        assert world.look() == []
        assert world.problems[0].message == "cannot be read: Permission denied"
        world.restart()
        world.unreadable = {"": "No such file or directory"}
        assert world.look() == []
        assert len(world.names) == 2

    def test_the_first_file_by_path_has_an_object(self) -> None:
        world = World()
        world.look(b=pod("web-0", node="n1"))
        world.look(a=pod("web-0", node="n2"))
        assert one_problem(world)[:3] == ("b.yaml", 1, "Pod/shop/web-0")
        assert "a.yaml:1" in world.problems[0].message
        assert world.spec("Pod", "web-0", "shop")["nodeName"] == "n2"
        (fact,) = world.look(a=None)
        assert isinstance(fact, ObjectFact) and fact.source == "b.yaml:1"
        assert not world.problems

    def test_an_object_twice_in_one_file_is_its_first(self) -> None:
        world = World()
        world.look(a=pod("web-0", node="n1") + "---\n" + pod("web-0", node="n2"))
        assert world.spec("Pod", "web-0", "shop")["nodeName"] == "n1"
        assert len(world.problems) == 1

    def test_an_object_too_large_for_a_message_is_a_problem(self) -> None:
        world = World()
        world.look(
            a="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big}\ndata: {x: " + "y" * 800_000 + "}\n"
        )
        assert world.names == set()
        assert "bytes as JSON" in world.problems[0].message

    def test_a_name_too_long_for_a_subject_is_a_problem(self) -> None:
        world = World()
        world.look(a="apiVersion: example.org/v1\nkind: Gadget\nmetadata: {name: " + "é" * 400 + "}\n")
        assert world.names == set()
        assert "too long" in world.problems[0].message

    def test_an_object_moves_between_files_without_going_away(self) -> None:
        world = World()
        world.look(a=pool("rack"))
        (fact,) = world.look(a=None, b=pool("rack"))
        assert isinstance(fact, ObjectFact) and fact.source == "b.yaml:1"
        # so that after a restart the right file keeps it
        world.texts["b.yaml"] = "kind: [unclosed"
        world.restart()
        assert world.look() == []


class TestOrder:
    def test_a_valid_folder_comes_into_force_whatever_its_files_are_called(self) -> None:
        world = World()
        world.look(
            a=pod("web-0"),
            b=pool("rack"),
            c=subnet("all"),
            d="apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
            z=config(enableSpiderSubnet=True),
        )
        assert not world.problems
        stored = world.stored("SpiderIPPool", "rack")
        assert stored is not None
        assert stored.raw["metadata"]["ownerReferences"][0]["name"] == "all"

    def test_a_pool_may_grow_into_what_another_gives_up_in_the_same_pass(self) -> None:
        world = World()
        world.look(a=pool("a", ips="10.6.0.1-10.6.0.9"), b=pool("b", ips="10.6.0.10-10.6.0.19"))
        world.look(a=pool("a", ips="10.6.0.1-10.6.0.14"), b=pool("b", ips="10.6.0.15-10.6.0.19"))
        assert not world.problems
        assert world.spec("SpiderIPPool", "a")["ips"] == ["10.6.0.1-10.6.0.14"]

    def test_of_two_that_exclude_each_other_the_first_comes_into_force_and_the_other_when_it_can(
        self,
    ) -> None:
        world = World()
        world.look(a=pool("a"), b=pool("b"))
        assert world.names == {"SpiderIPPool/a"}
        assert world.problems[0].object == "SpiderIPPool/b"
        world.look(a=pool("a", ips="10.6.0.10"), b=pool("b", ips="10.6.0.11"))
        assert world.names == {"SpiderIPPool/a", "SpiderIPPool/b"}


class TestInUse:
    def test_addresses_in_use_may_not_leave_a_pool(self) -> None:
        world = World()
        world.look(a=pool("rack"))
        world.leases = {"rack": (lease("10.6.0.20", "rack"),)}
        assert world.look(a=pool("rack", ips="10.6.0.10-10.6.0.19")) == []
        assert "10.6.0.20" in world.problems[0].message and "shop/web-0" in world.problems[0].message
        world.leases = {}
        world.look()
        assert world.spec("SpiderIPPool", "rack")["ips"] == ["10.6.0.10-10.6.0.19"]
        assert not world.problems

    def test_while_the_allocator_is_away_a_shrinking_pool_waits_and_a_growing_one_does_not(self) -> None:
        world = World()
        world.look(a=pool("a", ips="10.6.0.1-10.6.0.5"), b=pool("b", ips="10.6.0.10-10.6.0.15"))
        world.leases = None
        world.look(a=pool("a", ips="10.6.0.1-10.6.0.4"), b=pool("b", ips="10.6.0.10-10.6.0.19"))
        assert world.spec("SpiderIPPool", "a")["ips"] == ["10.6.0.1-10.6.0.5"]
        assert world.spec("SpiderIPPool", "b")["ips"] == ["10.6.0.10-10.6.0.19"]
        assert "waits" in world.problems[0].message
        world.leases = {}
        world.look()
        assert not world.problems


class TestDeletionOfPools:
    def test_a_pool_is_terminating_until_its_last_lease_is_gone(self) -> None:
        world = World()
        (made,) = world.look(a=pool("rack"))
        world.leases = {"rack": (lease("10.6.0.20", "rack"),)}
        (fact,) = world.look(a=None)
        assert isinstance(fact, ObjectFact)
        assert decoded(fact)["metadata"]["deletionTimestamp"]
        assert world.collect() == [] and world.look() == []
        world.leases = {}
        (gone,) = world.collect()
        assert isinstance(gone, ObjectGone) and isinstance(made, ObjectFact) and gone.uid == made.uid

    def test_the_file_that_comes_back_makes_a_new_pool_when_the_old_one_is_gone(self) -> None:
        world = World()
        (made,) = world.look(a=pool("rack"))
        world.leases = {"rack": (lease("10.6.0.20", "rack"),)}
        world.look(a=None)
        assert world.look(a=pool("rack")) == []
        assert "created anew" in world.problems[0].message
        world.restart()
        assert world.look() == []
        world.leases = {}
        assert len(world.collect()) == 1
        (fact,) = world.look()
        assert isinstance(fact, ObjectFact) and isinstance(made, ObjectFact)
        assert "deletionTimestamp" not in decoded(fact)["metadata"] and fact.uid != made.uid
        assert not world.problems

    def test_a_pool_that_vanished_while_nobody_looked_is_terminating_too(self) -> None:
        world = World()
        world.look(a=pool("rack"), b=pod("web-0"))
        world.texts.clear()
        world.restart()
        facts = world.look()
        assert [type(fact) for fact in facts] == [ObjectGone, ObjectFact]

    @pytest.mark.parametrize("answers", [True, False])
    def test_protected_pools_stay_in_force(self, answers: bool) -> None:
        world = World()
        world.look(a=pool("rack"), conf=config(enableValidatingResourcesDeletedWebhook=True))
        world.leases = {"rack": (lease("10.6.0.20", "rack"),)} if answers else None
        assert world.look(a=None) == []
        assert world.problems[0].object == "SpiderIPPool/rack"
        assert ("allocated" in world.problems[0].message) == answers
        world.leases = {}
        (fact,) = world.look()
        assert isinstance(fact, ObjectFact) and decoded(fact)["metadata"]["deletionTimestamp"]

    def test_a_pool_with_another_uid_waits_until_the_old_one_is_gone(self) -> None:
        world = World()
        world.look(a=pool("rack").replace("name: rack", "name: rack, uid: u1"))
        world.leases = {"rack": (lease("10.6.0.20", "rack"),)}
        (fact,) = world.look(a=pool("rack").replace("name: rack", "name: rack, uid: u2"))
        assert (
            isinstance(fact, ObjectFact)
            and fact.uid == "u1"
            and decoded(fact)["metadata"]["deletionTimestamp"]
        )
        world.leases = {}
        world.collect()
        (fact,) = world.look()
        assert isinstance(fact, ObjectFact) and fact.uid == "u2"


class TestRestart:
    def test_nothing_is_told_again(self) -> None:
        world = World()
        world.look(
            a=pool("rack", ips="10.6.0.12, 10.6.0.10, 10.6.0.11"),
            b=subnet("s", subnet="10.9.0.0/16", ips="10.9.0.1"),
        )
        world.look(c=pod("web-0"), d=config(enableIPv6=False))
        world.restart()
        assert world.look() == []

    def test_only_changes_and_what_vanished_are_told(self) -> None:
        world = World()
        world.look(a=pod("a"), b=pod("b"), c=pod("c"))
        world.restart()
        facts = world.look(a=None, b=pod("b", node="n9"))
        assert [(type(fact), fact.name) for fact in facts] == [(ObjectGone, "a"), (ObjectFact, "b")]  # type: ignore[union-attr]

    def test_a_stream_that_was_lost_is_told_everything_under_the_same_versions(self) -> None:
        world = World()
        world.look(a=pod("a"), b=pod("b"))
        facts = world.objects.missing_from([])
        assert {(fact.name, fact.version) for fact in facts} == {("a", 1001), ("b", 1002)}  # type: ignore[union-attr]

    def test_a_stream_that_lacks_its_end_is_told_that_end(self) -> None:
        world = World()
        (first,) = world.look(a=pod("a"))
        world.look(b=pod("b"))
        world.look(a=None)
        facts = world.objects.missing_from([first])
        assert [type(fact) for fact in facts] == [ObjectGone, ObjectFact]
        assert facts[0].version > world.consumer.version

    def test_versions_rise_although_the_last_was_a_tombstone_that_the_server_forgot(self) -> None:
        world = World()
        (kept, _) = world.look(a=pod("a"), b=pod("b"))
        (gone,) = world.look(b=None)
        objects = Objects([kept], first_version=2000)
        (fact,) = objects.remove(ObjectKey("Pod", "shop", "a"))
        assert fact.version > 2000 > gone.version


def annotated(name: str, **marks: str) -> str:
    text = "".join(f"    ipam.spidernet.io/{key}: '{value}'\n" for key, value in marks.items())
    return f"apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n  annotations:\n{text}spec: {{nodeName: n1}}\n"


def test_a_pod_with_a_bad_annotation_is_in_force_and_the_mistake_stays_told() -> None:
    world = World()
    world.look(a=annotated("web-0", ippool="garbage"))
    for _ in range(2):
        assert world.stored("Pod", "web-0", "shop") is not None
        assert one_problem(world) == (
            "a.yaml",
            7,
            "Pod/shop/web-0",
            "metadata.annotations[ipam.spidernet.io/ippool]",
        )
        world.look()
    world.restart()
    world.look()
    assert len(world.problems) == 1
    world.look(a=annotated("web-0", ippool='{"ipv4":["rack"]}'))
    assert world.problems == ()


def test_a_bad_annotation_is_told_until_its_pod_is_gone() -> None:
    world = World()
    world.look(a=annotated("web-0", routes="garbage"))
    assert len(world.problems) == 1
    world.look(a=None)
    assert world.problems == () and world.stored("Pod", "web-0", "shop") is None


def test_a_pool_of_the_wrong_family_is_told_until_it_is_another() -> None:
    world = World()
    world.look(p=pool("rack"), a=annotated("web-0", ippool='{"ipv6":["rack"]}'))
    assert one_problem(world)[0] == "a.yaml"
    world.look(p=None)
    world.collect()
    world.look()
    assert world.problems == ()


def test_annotations_of_automatic_pools_are_no_matter_of_the_folder() -> None:
    world = World()
    world.look(c=config(enableSpiderSubnet=True), a=annotated("web-0", subnet="garbage"))
    assert world.problems == () and world.stored("Pod", "web-0", "shop") is not None


def test_a_namespace_with_a_bad_annotation_is_in_force() -> None:
    world = World()
    world.look(
        a="apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  annotations: {ipam.spidernet.io/default-ipv4-ippool: x}\n"
    )
    assert world.stored("Namespace", "shop") is not None
    assert one_problem(world)[1] == 5


def test_a_mistake_of_form_keeps_a_pod_out() -> None:
    world = World()
    world.look(a=annotated("web-0").replace("annotations:", "annotations: {a b: c}"))
    assert world.stored("Pod", "web-0", "shop") is None and len(world.problems) == 1


def test_what_has_no_effect_is_a_warning() -> None:
    world = World()
    world.look(a=pool("rack") + "  colour: red\n")
    assert world.problems == () and world.stored("SpiderIPPool", "rack") is not None
    assert [(one.file, one.line, one.field) for one in world.warnings] == [("a.yaml", 7, "spec.colour")]


def test_a_secret_is_told_without_what_it_says() -> None:
    world = World()
    secret = """\
apiVersion: v1
kind: Secret
type: Opaque
metadata:
  name: s
  annotations: {kubectl.kubernetes.io/last-applied-configuration: hunter2, a: b}
data: {password: hunter2}
stringData: {other: hunter2}
immutable: true
"""
    (fact,) = world.look(a=secret)
    assert isinstance(fact, ObjectFact)
    assert b"hunter2" not in fact.object
    assert decoded(fact)["type"] == "Opaque" and decoded(fact)["metadata"]["annotations"] == {"a": "b"}
    assert world.look(a=secret.replace("hunter2", "hunter3")) == []


def test_a_wrong_form_does_not_hide_what_the_rules_say() -> None:
    world = World()
    world.look(a=pool("rack", ips="10.7.0.1") + "  disable: maybe\n")
    assert [(one.field, one.line) for one in world.problems] == [("spec.disable", 7), ("spec.ips[0]", 6)]


def test_settings_without_effect_are_warned_of() -> None:
    world = World()
    world.look(a=config(enableIPv6=True, enableGatewayDetection=True))
    assert world.problems == ()
    assert [(one.field, one.line) for one in world.warnings] == [("data[conf.yml].enableGatewayDetection", 7)]


def test_a_misspelt_annotation_is_a_warning_as_long_as_it_stands_there() -> None:
    world = World()
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-0\n  namespace: shop\n  annotations:\n"
        '    ipam.spidernet.io/ipool: \'{"ipv4":["rack"]}\'\nspec: {nodeName: n1}\n'
    )
    world.look(a=text)
    (warning,) = world.warnings
    assert (warning.file, warning.line) == (
        "a.yaml",
        7,
    ) and "did you mean ipam.spidernet.io/ippool?" in warning.message
    assert not world.problems
    world.look(b=pool("rack"))
    assert len(world.warnings) == 1
    world.look(a=text.replace("ipool", "ippool"))
    assert not world.warnings
