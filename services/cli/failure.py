"""How a command says no: one sentence for the user, exit code 1.

Owns the exception that `main` turns into that. Must not know any command.
"""

from __future__ import annotations


class CommandError(Exception):
    """`message` is a sentence that says what is wrong and, where one exists, the way out; `detail` are lines that show more."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class UsageError(CommandError):
    """The words themselves cannot be right, whatever the system holds: exit code 2, like an unknown option."""
