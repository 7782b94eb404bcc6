from __future__ import annotations

import pytest

from services.cli import output


def test_a_table_keeps_every_cell_whole_and_aligns_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(
        ["NAME", "N", "ON"], [["a" * 200, 5, True], ["[b]x[/b]\x1b[31m", 1234, None], ["c", 7, ["x", "y"]]]
    )
    header, first, second, third = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "N", "ON"]
    assert first == "a" * 200 + "     5  true"
    assert second.startswith("[b]x[/b]?[31m ")
    assert second.endswith("  1234")
    assert {len(line.rstrip("truex,y ")) for line in (first, second, third)} == {206}
    assert third.split() == ["c", "7", "x,y"]


def test_an_empty_table_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["A", "B"], [], prose=True)
    assert capsys.readouterr().out == "A  B\n"


def test_documents(capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"a": "1"}
    output.document({"x": [shared, shared], "n": None, "text": "é\nf"}, "yaml")
    assert capsys.readouterr().out == "x:\n- a: '1'\n- a: '1'\nn: null\ntext: 'é\n\n  f'\n"
    output.document({"x": (1, 2)}, "json")
    assert capsys.readouterr().out == '{\n  "x": [\n    1,\n    2\n  ]\n}\n'
