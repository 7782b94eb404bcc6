"""The command line: which commands there are, how they are called, and what their exit codes mean.

Owns parsing and exit codes: 0 done, 1 no, 2 wrong usage. Must not know what a command does: each is imported when it is called,
so that help and completion are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from services.cli.failure import CommandError, UsageError
from services.cli.manual import COMMANDS, INTRODUCTION, INTRODUCTION_CNI
from services.cli.output import Terminal

DONE, NO, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def application() -> App:
    """All commands, none imported yet."""
    app = App(
        name="orbweaver",
        help=INTRODUCTION,
        help_format="plaintext",
        version_flags=[],
        console=Terminal(),
        # An empty default says nothing, and every flag has one spelling.
        default_parameter=Parameter(show_default=lambda value: value or None, negative=""),
    )
    cni = App(name="cni", help=INTRODUCTION_CNI, help_format="plaintext", version_flags=[])
    app.command(cni)
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        (cni if group else app).command(
            command.function, name=name, help=command.help, help_format="plaintext"
        )
    return app


def run(words: Sequence[str]) -> int:
    """Runs one command line and answers its exit code. What a command says goes to stdout, every complaint to stderr."""
    app = application()
    try:
        if list(words) in ([], ["cni"]):
            app.help_print(words)
            return DONE
        if list(words) == ["--version"]:
            words = ["version"]
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        path = " ".join(error.command_chain or ())
        print(f"{error}\nTry `{' '.join(filter(None, ('orbweaver', path)))} --help`.", file=sys.stderr)
        return WRONG_USAGE
    except CommandError as error:
        print(error.message, file=sys.stderr)
        if error.detail:
            print(error.detail, file=sys.stderr)
        return WRONG_USAGE if isinstance(error, UsageError) else NO
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; a second complaint at exit would be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    return DONE if code is None else code


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
