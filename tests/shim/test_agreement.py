"""The shim imports nothing of ours, so what it shares with the rest is compared here."""

from __future__ import annotations

import re

from cni import freeze, shim
from shared import limits, subjects
from shared.errors import BY_CODE, ERRORS

SOURCE = (freeze.HERE / "shim.py").read_text()


def test_limits_are_those_of_the_table() -> None:
    assert shim.BODY_MAX_BYTES == limits.CNI_BODY_MAX_BYTES
    assert shim.DEADLINES_S == {
        b"ADD": limits.ADD_DEADLINE_S,
        b"DEL": limits.DEL_DEADLINE_S,
        b"CHECK": limits.CHECK_DEADLINE_S,
        b"GC": limits.GC_DEADLINE_S,
        b"STATUS": limits.STATUS_DEADLINE_S,
        b"VERSION": 10.0,  # for reading stdin
    }


def test_every_code_is_of_the_table() -> None:
    codes = {int(code) for code in re.findall(r"CniError\(\s*(\d+)", SOURCE)}
    assert codes == {4, 5, 6, 11, 50, 116, 199}
    assert codes <= set(BY_CODE)
    assert ERRORS["credential_refused"].hint == shim.INSTALL_AGAIN.decode()


def test_subjects_are_those_the_shim_may_use() -> None:
    permitted = subjects.node_identities("n.1 é")["shim"]
    assert permitted.publish == (subjects.cni("n.1 é"),)
    assert permitted.subscribe == (f"{subjects.inbox('shim')}.>",)
    assert f'b"{subjects.inbox("shim")}.%b."' in SOURCE


def test_the_c_and_the_python_native_have_the_same_names() -> None:
    c = (freeze.HERE / "main.c").read_text()
    python = (freeze.HERE / "fallback.py").read_text()
    c_methods = set(re.findall(r'^    \{"(\w+)", native_', c, re.M))
    c_values = set(re.findall(r'PyModule_AddObject\(module, "(\w+)"', c))
    assert c_methods == set(re.findall(r"^    def (\w+)\(self", python, re.M)) - {"__init__"}
    assert c_values == set(re.findall(r"^    (\w+): (?:int|bytes)$", python, re.M))
