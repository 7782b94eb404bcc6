"""SpiderCoordinator: defaults, and one test for each rule."""

from __future__ import annotations

from typing import Any

import pytest

from shared.admission.rules import mutate
from shared.admission.view import Objects
from tests.unit.admission.objects import coordinator, create, delete, fields, said, update


def test_defaults() -> None:
    out = mutate(coordinator(hijackCIDR=["169.254.0.0/16", "1.2.3.4", "fd00::1"]), Objects())
    assert out["spec"] == {
        "podCIDRType": "auto",
        "mode": "auto",
        "tunePodRoutes": True,
        "hostRuleTable": 500,
        "podRPFilter": 0,
        "txQueueLen": 0,
        "podMACPrefix": "",
        "podDefaultRouteNIC": "",
        "vethLinkAddress": "",
        "vethMTU": 1500,
        "hijackCIDR": ["169.254.0.0/16", "1.2.3.4/32", "fd00::1/128"],
    }
    assert "finalizers" not in out["metadata"], "nobody would take it off again"


def test_policy_routes_are_written_as_networks() -> None:
    out = mutate(coordinator(policyRoutes=[{"dst": "10.0.0.1", "gw": "10.0.0.2"}]), Objects())
    assert out["spec"]["policyRoutes"] == [{"dst": "10.0.0.1/32", "gw": "10.0.0.2"}]


@pytest.mark.parametrize(
    ("spec", "field", "sentence"),
    [
        ({"podCIDRType": None}, "spec.podCIDRType", "must be given"),
        ({"podCIDRType": "flannel"}, "spec.podCIDRType", "Unsupported value"),
        ({"mode": "bridge"}, "spec.mode", "Unsupported value"),
        ({"hijackCIDR": ["10.0.0.0/8", "x"]}, "spec.hijackCIDR[1]", "neither an IP nor a CIDR"),
        ({"policyRoutes": [{"dst": "x", "gw": "10.0.0.1"}]}, "spec.policyRoutes[0].dst", "neither"),
        ({"policyRoutes": [{"dst": "10.0.0.0/8", "gw": "x"}]}, "spec.policyRoutes[0].gw", "invalid IP"),
        ({"policyRoutes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]}, "spec.policyRoutes[0].gw", "families"),
        ({"podMACPrefix": "01:10"}, "spec.podMACPrefix", "not a unicast MAC"),
        ({"podMACPrefix": "0a"}, "spec.podMACPrefix", "not a valid MAC prefix"),
        ({"podMACPrefix": "0a:1b:2c"}, "spec.podMACPrefix", "not a valid MAC prefix"),
        ({"podRPFilter": 3}, "spec.podRPFilter", "Unsupported value"),
        ({"txQueueLen": -1}, "spec.txQueueLen", "greater than or equal to 0"),
        ({"vethLinkAddress": "169.254.200"}, "spec.vethLinkAddress", "invalid IP"),
        ({"vethMTU": 0}, "spec.vethMTU", "vethMTU must be greater than 0"),
        ({"podDefaultRouteNIC": "a/b"}, "spec.podDefaultRouteNIC", "cannot be the name"),
    ],
)
def test_rules(spec: dict[str, Any], field: str, sentence: str) -> None:
    verdict = create(coordinator(**spec))
    assert fields(verdict) == [field]
    assert sentence in said(verdict)
    assert fields(update(coordinator(), coordinator(**spec))) == [field]


@pytest.mark.parametrize(
    "spec",
    [
        {"podRPFilter": -1},
        {"podRPFilter": -5},
        {"podRPFilter": 2},
        {"podMACPrefix": "9e:10"},
        {"vethLinkAddress": "169.254.200.1"},
        {"mode": "disabled"},
        {"detectGateway": True, "detectIPConflict": False, "hostRPFilter": 1},
    ],
)
def test_what_is_allowed(spec: dict[str, Any]) -> None:
    assert create(coordinator(**spec)).valid


def test_deletion_is_free() -> None:
    assert delete(coordinator()).valid
