"""What a request says and what it brings must be of one kind."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.webhook.review import answer, decode
from shared.admission.view import Objects

POOL: dict[str, Any] = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderIPPool",
    "metadata": {"name": "p"},
    "spec": {"subnet": "10.6.0.0/16"},
}
POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}


def asked(verb: Any, now: dict[str, Any] | None, old: dict[str, Any] | None) -> dict[str, Any]:
    request = {
        "uid": "u",
        "kind": {"group": "spiderpool.spidernet.io", "version": "v2beta1", "kind": "SpiderIPPool"},
        "operation": "CREATE" if old is None else "UPDATE" if now is not None else "DELETE",
        "object": now,
        "oldObject": old,
    }
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    request_of = decode(msgspec.json.encode(body))
    return answer(verb, "SpiderIPPool", request_of, Objects())["response"]


@pytest.mark.parametrize("verb", ["mutate", "validate"])
@pytest.mark.parametrize(
    ("now", "old"),
    [(POD, None), ({**POOL, "apiVersion": "v1"}, None), (POOL, POD), (None, POD), ({"metadata": {}}, None)],
)
def test_an_object_of_another_kind_is_refused_and_not_judged_as_one_without_rules(
    verb: str, now: dict[str, Any] | None, old: dict[str, Any] | None
) -> None:
    response = asked(verb, now, old)
    assert response["allowed"] is False
    assert (response["status"]["code"], response["status"]["reason"]) == (400, "BadRequest")
    assert "no SpiderIPPool of spiderpool.spidernet.io/v2beta1" in response["status"]["message"]


def test_an_object_of_the_kind_is_served() -> None:
    assert asked("mutate", POOL, None)["patch"]
    assert asked("validate", None, POOL)["allowed"] is True
