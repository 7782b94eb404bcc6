"""The options that several commands have, each spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

DEFAULT_STATE = Path("/var/lib/orbweaver")

State = Annotated[
    Path,
    Parameter(name="--state", env_var="ORBWEAVER_STATE", help="State directory of the system."),
]
Namespace = Annotated[
    str, Parameter(name=("--namespace", "-n"), help="Only objects of this namespace; without it, of all.")
]
AllNamespaces = Annotated[
    bool,
    Parameter(
        name=("--all-namespaces", "-A"),
        negative="",
        help="All namespaces, which is what happens without -n too.",
    ),
]
Output = Literal["table", "wide", "json", "yaml", "name"]
OutputOption = Annotated[
    Output,
    Parameter(name=("--output", "-o"), help="table and wide for people; json, yaml and name for programs."),
]
Document = Literal["table", "json", "yaml"]
DocumentOption = Annotated[
    Document, Parameter(name=("--output", "-o"), help="table for people; json and yaml for programs.")
]
