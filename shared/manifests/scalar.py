"""Plain scalars of YAML as Kubernetes resolves them: go-yaml v2 (resolve.go), then Go's JSON.

Owns which text is which value. Must not know documents.
"""

from __future__ import annotations

import math
import re
from typing import Any

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INTEGER = re.compile(r"([-+]?)(?:(0[xX])([0-9a-fA-F]+)|(0[bB])([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def resolve(text: str) -> Any:
    """The JSON value of a plain scalar (go-yaml v2, resolve.go)."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    bare = text.replace("_", "")
    whole = _INTEGER.fullmatch(bare)
    if whole:
        sign, hexa, hex_digits, binary, bits, octal, decimal = whole.groups()
        digits, base = (
            (hex_digits, 16) if hexa else (bits, 2) if binary else (octal, 8) if octal else (decimal, 10)
        )
        if len(digits) <= 64:
            value = -int(digits, base) if sign == "-" else int(digits, base)
            if -(1 << 63) <= value < (1 << 64):
                return value
    if _FLOAT.fullmatch(bare):
        return number(float(bare))
    return text


def number(value: float) -> int | float:
    """A whole number below 1e21 is an integer, as Go's JSON prints it."""
    return int(value) if value.is_integer() and abs(value) < 1e21 else value
