"""What a run of cases came to: a table by area, then one line of JSON.

Owns the counting: a case passed when it has a test and every test of it passed; one without a test failed.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from rich.console import Console
from rich.table import Table

from tests.conformance.case import Case, cases_of


class Report:
    """A plugin of pytest that keeps the outcome of every case of one run."""

    def __init__(self, run: str) -> None:
        self._cases = {one.name: one for one in cases_of(run)}
        self._ran: dict[str, bool] = {}
        self._names: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self._names[item.nodeid] = [str(mark.args[0]) for mark in item.iter_markers("case")]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name in self._names.get(report.nodeid, []):
            if report.when == "call" or report.failed:
                self._ran[name] = self._ran.get(name, True) and report.passed

    def outcome(self, one: Case) -> str:
        if one.not_applicable:
            return "not applicable"
        return "passed" if self._ran.get(one.name, False) else "failed"

    def show(self) -> bool:
        """Prints; whether nothing failed."""
        areas: dict[str, Counter[str]] = {}
        for one in self._cases.values():
            areas.setdefault(one.area, Counter())[self.outcome(one)] += 1
        table = Table("area", "passed", "failed", "not applicable", title="Conformance")
        for area, counts in areas.items():
            table.add_row(area, *(str(counts[what]) for what in ("passed", "failed", "not applicable")))
        console = Console(highlight=False)
        console.print(table)
        for one in self._cases.values():
            outcome = self.outcome(one)
            if outcome == "failed":
                why = "no test of it ran" if one.name not in self._ran else "see above"
                console.print(
                    f"failed: {one.name} ({one.area}) {one.statement}: {why}", markup=False, soft_wrap=True
                )
            elif outcome == "not applicable":
                console.print(
                    f"not applicable: {one.name} ({one.area}) {one.not_applicable}",
                    markup=False,
                    soft_wrap=True,
                )
        whole = sum(areas.values(), Counter[str]())
        summary = {
            "passed": whole["passed"],
            "failed": whole["failed"],
            "not_applicable": whole["not applicable"],
            "total": whole.total(),
        }
        print(json.dumps(summary))
        return summary["failed"] == 0
