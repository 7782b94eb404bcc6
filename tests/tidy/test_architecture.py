"""What the documents promise of the code is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
HELD_BY = re.findall(r"\| `(tests/[^`]+)` \|", ARCHITECTURE)
MAKE_PATHS = sorted(set(re.findall(r"\btests/[\w/.-]*\w", (ROOT / "Makefile").read_text())))
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(
    path for folder in ("docs", "services", "cni") for path in (ROOT / folder).rglob("*.md")
)


def test_invariants_are_listed() -> None:
    assert len(HELD_BY) >= 20 and len(set(HELD_BY)) == len(HELD_BY)


@pytest.mark.parametrize("held_by", HELD_BY)
def test_each_invariant_names_a_test_that_exists(held_by: str) -> None:
    file, _, name = held_by.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    if not name:
        return
    names = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    } | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert name in names, f"{file} has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("path", MAKE_PATHS)
def test_each_path_of_the_makefile_exists(path: str) -> None:
    """pytest runs nothing at all when one of its paths does not."""
    assert (ROOT / path).exists()
