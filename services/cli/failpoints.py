"""`orbweaver failpoints`: the steps at which a process can be made to die, to stall or to lose a message."""

from __future__ import annotations

from services.cli import output
from services.cli.option import DocumentOption
from shared.failpoint import POINTS


def failpoints(*, form: DocumentOption = "table") -> None:
    if form == "table":
        rows = [(name, point.drops, point.stands) for name, point in POINTS.items()]
        output.table(["NAME", "DROPS", "STANDS FOR"], rows, prose=True)
    else:
        output.document(
            [{"name": name, "drops": point.drops, "stands": point.stands} for name, point in POINTS.items()],
            form,
        )
