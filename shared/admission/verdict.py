"""What admission answers: every error and warning at once, and the HTTP status that Kubernetes gives for them.

Owns the verdict and the names of operations. Must not know any rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from shared.manifests.problem import FieldError

Operation = Literal["CREATE", "UPDATE", "DELETE"]
FINALIZER = "spiderpool.spidernet.io"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`errors` refuse the object; `warnings` are what a later object may cure, or what has no effect."""

    errors: tuple[FieldError, ...] = ()
    warnings: tuple[FieldError, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.errors

    @property
    def status(self) -> int:
        """200; 409 where the object exists; 403 where something beside the spec forbids it; else 422."""
        if not self.errors:
            return 200
        if any(error.code == "AlreadyExists" for error in self.errors):
            return 409
        if any(
            error.code == "Forbidden" and not error.field.startswith(("spec", "data"))
            for error in self.errors
        ):
            return 403
        return 422


def verdict(errors: Iterable[FieldError], warnings: Iterable[FieldError] = ()) -> Verdict:
    return Verdict(errors=tuple(dict.fromkeys(errors)), warnings=tuple(dict.fromkeys(warnings)))
