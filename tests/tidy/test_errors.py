"""The table of errors and the code agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.errors import BY_CODE, ERRORS

ROOT = Path(__file__).parents[2]
SOURCES = {
    path: path.read_text()
    for folder in ("services", "shared", "cni")
    for path in (ROOT / folder).rglob("*.py")
}
LATER = {
    "field_unsupported": "the CNI specification's code 2; a key that we do not know is config_invalid",
    "limited_connectivity": "the CNI specification's code 51; nothing tells pods' connectivity yet",
    "address_conflict": "address probes are not served yet",
    "gateway_silent": "gateway probes are not served yet",
    "no_rdma_device": "RDMA claims are not served yet",
    "lease_lost": "an attachment that lost its lease is not detached yet",
}
"""Rows that nothing raises, each with its reason: a code is never re-used, so the numbers are kept."""


def _raised(name: str) -> bool:
    return any(
        re.search(rf"[\"']{name}[\"']", text) for path, text in SOURCES.items() if path.name != "errors.py"
    )


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_each_error_is_raised_somewhere_or_says_why_not(name: str) -> None:
    code = ERRORS[name].code
    if name in LATER:
        assert not _raised(name), f"{name} is raised: take it out of LATER"
        return
    assert _raised(name) or any(
        re.search(rf"\b{code}\b", text) for path, text in SOURCES.items() if path.parent.name == "cni"
    )


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_codes_are_the_specifications_or_ours(name: str) -> None:
    code = ERRORS[name].code
    assert code in {1, 2, 3, 4, 5, 6, 7, 11, 50, 51} or code > 100
    assert BY_CODE[code] is ERRORS[name] and ERRORS[name].hint
