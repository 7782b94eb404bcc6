"""Patterns of pool names (Go's path.Match)."""

from __future__ import annotations

import time

import pytest

from shared.manifests.wildcard import is_pattern, matches, pattern_error


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*", "", True),
        ("*", "a/b", False),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*b*c*d*e*", "axbxcxdxe", True),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        (r"a\*b", "a*b", True),
        (r"a\*b", "ab", False),
        ("a?b", "a-b", True),
        ("a?b", "a/b", False),
        ("[a-z]", "a", True),
        ("[z-a]", "m", False),
        (r"[\]a]", "]", True),
        ("red-v?-*", "red-v4-one", True),
        ("*x", "xxx", True),
        ("a", "A", False),
    ],
)
def test_matching(pattern: str, name: str, wanted: bool) -> None:
    assert matches(pattern, name) is wanted
    assert pattern_error(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    ["[]a]", "a[]b", "[-]", "[x-]", "[-x]", "[", "[^", "a[", "a[x", "[a-b-c]", "\\", "[a\\", "[a\\]"],
)
def test_syntax_errors(pattern: str) -> None:
    assert pattern_error(pattern) is not None
    assert not matches(pattern, "a")


def test_what_is_taken_as_a_pattern() -> None:
    assert is_pattern("a*")
    assert is_pattern("a?")
    assert is_pattern("a[b]")
    assert not is_pattern("a[b")
    assert not is_pattern("a]b")
    assert not is_pattern("abc")


def test_no_pattern_is_slow() -> None:
    start = time.perf_counter()
    assert not matches("*a" * 60 + "b", "a" * 253)
    assert time.perf_counter() - start < 0.2
