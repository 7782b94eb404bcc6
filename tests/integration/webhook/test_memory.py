"""Which facts count, and that a cluster's pods are not kept."""

from __future__ import annotations

import msgspec
import pytest

from services.webhook.memory import FactMemory
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
