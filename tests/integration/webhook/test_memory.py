"""Which facts count, and that a cluster's pods are not kept."""

from __future__ import annotations

import msgspec
import pytest

from services.webhook.memory import EXPECTED_S, FactMemory
from shared.contracts.facts import FactsSynced, ObjectFact, ObjectGone
from tests.integration.webhook.conftest import Json, pool


def fact(raw: Json, version: int) -> ObjectFact:
    return ObjectFact(
        kind=raw["kind"],
        api_version=raw["apiVersion"],
        namespace=raw["metadata"].get("namespace", ""),
        name=raw["metadata"]["name"],
        uid="u",
        version=version,
        object=msgspec.json.encode(raw),
    )


def gone(name: str, version: int) -> ObjectGone:
    return ObjectGone(kind="SpiderIPPool", namespace="", name=name, uid="u", version=version)


def test_an_older_fact_changes_nothing() -> None:
    memory = FactMemory()
    memory.apply(fact(pool("a", gateway="10.6.0.2"), 5), 1)
    memory.apply(fact(pool("a", gateway="10.6.0.1"), 4), 2)
    memory.apply(gone("a", 3), 3)
    found = memory.objects.pool("a")
    assert found is not None and found.spec.gateway == "10.6.0.2"
    assert memory.sequence == 3
    assert not memory.synced


def test_a_tombstone_removes_and_the_name_may_come_again() -> None:
    memory = FactMemory()
    memory.apply(fact(pool("a"), 1), 1)
    memory.apply(gone("a", 2), 2)
    assert memory.objects.pool("a") is None
    memory.apply(gone("a", 2), 2)
    memory.apply(fact(pool("a"), 3), 3)
    assert memory.objects.pool("a") is not None
    memory.apply(FactsSynced(incarnation="i", version=4, objects=1), 4)
    assert memory.synced


def test_only_what_rules_read_is_kept() -> None:
    memory = FactMemory()
    for kind, name in (("Pod", "p"), ("Node", "n"), ("ConfigMap", "other"), ("ConfigMap", "spiderpool-conf")):
        raw: Json = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "x"},
            "data": {},
        }
        memory.apply(fact(raw, 1), 1)
    assert len(memory.objects) == 1


def test_a_fact_that_is_no_json_is_told() -> None:
    broken = msgspec.structs.replace(fact(pool("a"), 1), object=b"{")
    with pytest.raises(ValueError, match="truncated"):
        FactMemory().apply(broken, 1)


def test_what_was_let_in_counts_until_its_fact_comes_or_does_not() -> None:
    memory = FactMemory()
    memory.expect(pool("a"), 0.0)
    assert memory.objects.pool("a") is not None
    memory.forget_expected(pool("b"), EXPECTED_S - 0.1)
    assert memory.objects.pool("a") is not None, "others are judged beside it"
    memory.forget_expected(pool("b"), EXPECTED_S)
    assert memory.objects.pool("a") is None, "something else refused it after us"


def test_a_second_try_is_not_refused_for_the_first() -> None:
    memory = FactMemory()
    memory.expect(pool("a"), 0.0)
    memory.forget_expected(pool("a"), 0.1)
    assert memory.objects.pool("a") is None


def test_an_update_that_did_not_happen_is_taken_back() -> None:
    memory = FactMemory()
    memory.objects.put(pool("a"))
    memory.expect(pool("a", ips=["10.6.0.99"]), 0.0)
    memory.expect(pool("a", ips=["10.6.0.98"]), 1.0)
    memory.forget_expected(None, 1.0 + EXPECTED_S)
    found = memory.objects.pool("a")
    assert found is not None and found.spec.ips == ("10.6.0.10-10.6.0.20",)
