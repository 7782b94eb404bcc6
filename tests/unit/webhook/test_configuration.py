"""The webhook configurations: what stands there is brought to what the settings say, and nothing else of it is touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from services.webhook.configuration import (
    NAMESPACE_INJECTION,
    NETWORK_INJECTION,
    PODS,
    Reach,
    Wish,
    mutating,
    reconciled,
    validating,
)
from services.webhook.review import PATHS
from shared.manifests.settings import Settings, parse

Json = dict[str, Any]
BUNDLE = Wish(ca_bundle="Q0E=")


def settings(text: str) -> Settings:
    found = parse(text)
    assert isinstance(found, Settings)
    return found


def named(configuration: Json | None) -> dict[str, Json]:
    assert configuration is not None
    return {entry["name"]: entry for entry in configuration["webhooks"]}


def stored(configuration: Json) -> Json:
    """As the API server gives it back: with defaults."""
    out = copy.deepcopy(configuration)
    out["metadata"] |= {"resourceVersion": "7", "uid": "u"}
    for entry in out["webhooks"]:
        entry.setdefault("namespaceSelector", {})
        entry["objectSelector"] = {}
    return out


@pytest.mark.parametrize("make", [validating, mutating])
def test_every_entry_calls_a_path_that_is_served(make: Any) -> None:
    for entry in make(Reach(), Wish())["webhooks"]:
        path = entry["clientConfig"]["service"]["path"]
        verb, _ = PATHS[path]
        assert verb == ("validate" if make is validating else "mutate")
        assert entry["sideEffects"] == "None" and entry["timeoutSeconds"] <= 5
    by_url = make(Reach(url="https://a:1"), Wish())["webhooks"][0]["clientConfig"]
    assert by_url["url"].startswith("https://a:1/") and "service" not in by_url


def test_what_fails_and_what_is_let_pass_where_nobody_answers() -> None:
    policies = {name: entry["failurePolicy"] for name, entry in named(validating(Reach(), Wish())).items()}
    ours = {name for name in policies if name.startswith("spider")}
    assert len(ours) == 5 and all(policies[name] == "Fail" for name in ours)
    assert all(policies[name] == "Ignore" for name in policies.keys() - ours)
    assert all(entry["failurePolicy"] == "Fail" for entry in named(mutating(Reach(), Wish())).values())


@pytest.mark.parametrize("make", [validating, mutating])
def test_the_authority_is_written_once(make: Any) -> None:
    current = stored(make(Reach(), Wish()))
    changed = reconciled(current, make(Reach(), BUNDLE))
    assert changed is not None and changed["metadata"]["resourceVersion"] == "7"
    assert {entry["clientConfig"]["caBundle"] for entry in changed["webhooks"]} == {"Q0E="}
    assert reconciled(changed, make(Reach(), BUNDLE)) is None


def test_without_an_authority_of_ours_the_bundle_is_somebody_elses() -> None:
    current = stored(validating(Reach(), BUNDLE))
    assert reconciled(current, validating(Reach(), Wish())) is None


def test_a_persons_changes_stay() -> None:
    current = stored(validating(Reach(url="https://elsewhere:9"), Wish()))
    current["webhooks"] = [entry for entry in current["webhooks"] if entry["name"] != PODS]
    current["webhooks"][0] |= {"failurePolicy": "Ignore", "timeoutSeconds": 9}
    current["webhooks"].append({"name": "theirs.example.com", "clientConfig": {}, "rules": []})
    changed = reconciled(current, validating(Reach(), BUNDLE))
    assert changed is not None
    assert [entry["name"] for entry in changed["webhooks"]] == [
        entry["name"] for entry in current["webhooks"]
    ]
    first = changed["webhooks"][0]
    assert (first["failurePolicy"], first["timeoutSeconds"]) == ("Ignore", 9)
    assert first["clientConfig"]["url"].startswith("https://elsewhere:9/")
    assert changed["webhooks"][-1] == current["webhooks"][-1]


def test_deletions_are_judged_where_they_are_protected() -> None:
    wish = Wish(settings=settings("enableValidatingResourcesDeletedWebhook: true"))
    changed = named(reconciled(stored(validating(Reach(), Wish())), validating(Reach(), wish)))
    for kind in ("spiderippool", "spidersubnet"):
        assert changed[f"{kind}.spiderpool.spidernet.io"]["rules"][0]["operations"] == [
            "CREATE",
            "UPDATE",
            "DELETE",
        ]
    assert changed["spiderreservedip.spiderpool.spidernet.io"]["rules"][0]["operations"] == [
        "CREATE",
        "UPDATE",
    ]


def test_entries_come_and_go_with_the_settings() -> None:
    on = settings("podResourceInject: {enabled: true}\nagent: {networkResourcePlugin: {enabled: true}}")
    before = stored(mutating(Reach(url="https://a:1"), BUNDLE))
    wish = Wish(ca_bundle="Q0E=", settings=on, injecting=("gpu", "ml"))
    during = reconciled(before, mutating(Reach(), wish))
    entries = named(during)
    assert {NAMESPACE_INJECTION, NETWORK_INJECTION} <= entries.keys()
    added = entries[NAMESPACE_INJECTION]
    assert added["clientConfig"] == {"url": "https://a:1/mutate--v1-pod", "caBundle": "Q0E="}
    assert added["namespaceSelector"]["matchExpressions"][-1]["values"] == ["gpu", "ml"]
    assert during is not None and reconciled(stored(during), mutating(Reach(), wish)) is None
    fewer = Wish(ca_bundle="Q0E=", settings=on, injecting=("gpu",))
    assert named(reconciled(during, mutating(Reach(), fewer)))[NAMESPACE_INJECTION]["namespaceSelector"][
        "matchExpressions"
    ][-1]["values"] == ["gpu"]
    after = reconciled(during, mutating(Reach(), BUNDLE))
    assert after is not None and [e["name"] for e in after["webhooks"]] == [
        e["name"] for e in before["webhooks"]
    ]


def test_the_system_and_our_own_namespace_are_spared_whatever_the_settings_say() -> None:
    wish = Wish(
        own_namespace="mine",
        settings=settings(
            "podResourceInject: {enabled: true, namespacesExclude: [a], namespacesInclude: [b]}"
        ),
    )
    selector = named(mutating(Reach(), wish))[PODS]["namespaceSelector"]["matchExpressions"]
    assert selector[0]["operator"] == "NotIn" and selector[0]["values"] == ["kube-system", "mine", "a"]
    assert selector[1]["operator"] == "In" and selector[1]["values"] == ["b"]
    judged = named(validating(Reach(), wish))[PODS]["namespaceSelector"]["matchExpressions"]
    assert judged[0]["values"] == ["kube-system", "mine"]
