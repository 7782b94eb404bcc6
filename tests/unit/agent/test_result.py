"""Results and errors in each version, beside the examples of the CNI specifications."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.agent.config import VERSIONS
from services.agent.result import (
    Result,
    ResultAddress,
    ResultInterface,
    ResultRoute,
    render,
    render_error,
    render_versions,
)
from shared.errors import ERRORS, OrbweaverError

RESULT = Result(
    interface=ResultInterface(name="eth0", mac="02:00:00:00:00:01", sandbox="/run/netns/p", mtu_bytes=1500),
    addresses=(
        ResultAddress(address="10.6.0.9/16", gateway="10.6.0.1"),
        ResultAddress(address="fd00:6::9/64"),
    ),
    routes=(ResultRoute(dst="0.0.0.0/0", gw="10.6.0.1"), ResultRoute(dst="10.9.0.0/16")),
)


@pytest.mark.parametrize("version", VERSIONS)
def test_form_of_each_version(version: str) -> None:
    old = version in ("0.3.0", "0.3.1", "0.4.0")
    interface: dict[str, Any] = {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/p"}
    v4: dict[str, Any] = {"address": "10.6.0.9/16", "gateway": "10.6.0.1", "interface": 0}
    v6: dict[str, Any] = {"address": "fd00:6::9/64", "interface": 0}
    assert json.loads(render(RESULT, version)) == {
        "cniVersion": version,
        "interfaces": [interface | ({"mtu": 1500} if version == "1.1.0" else {})],
        "ips": [v4 | ({"version": "4"} if old else {}), v6 | ({"version": "6"} if old else {})],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.6.0.1"}, {"dst": "10.9.0.0/16"}],
        "dns": {},
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_an_ipam_plugin_tells_no_interface(version: str) -> None:
    shown = json.loads(render(Result(addresses=RESULT.addresses, routes=RESULT.routes), version))
    assert "interfaces" not in shown
    assert all("interface" not in ip for ip in shown["ips"])
    assert len(shown["ips"]) == 2


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    error = json.loads(render_error(OrbweaverError(name, 'sentence with "quotes"'), "0.4.0", trace_id="ab"))
    assert error == {
        "cniVersion": "0.4.0",
        "code": ERRORS[name].code,
        "msg": 'sentence with "quotes"',
        "details": f"{ERRORS[name].hint} (trace ab)",
    }


def test_versions() -> None:
    assert json.loads(render_versions("0.4.0")) == {
        "cniVersion": "0.4.0",
        "supportedVersions": list(VERSIONS),
    }
