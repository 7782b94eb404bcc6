"""`python -m tests.conformance services|cluster [pytest's arguments]`: the cases of one run, then what they came to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance.case import CLUSTER, SERVICES
from tests.conformance.report import Report


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in (SERVICES, CLUSTER):
        print(
            f"usage: python -m tests.conformance {SERVICES}|{CLUSTER} [pytest's arguments]", file=sys.stderr
        )
        return 2
    run, *more = arguments
    report = Report(run)
    pytest.main([str(Path(__file__).parent / run), *more], plugins=[report])
    return 0 if report.show() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
