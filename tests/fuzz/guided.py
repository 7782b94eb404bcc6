"""One target under atheris (libFuzzer for Python): `python -m tests.fuzz.guided TARGET SECONDS`.

Owns the instrumentation. atheris is optional: nothing else imports this module.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

PACKAGES = ["cni", "services", "shared"]


def main(name: str, limit_s: str) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=PACKAGES):
        found = importlib.import_module("tests.fuzz.run")
    target = found.target_of(name)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(data)
        kept = Path("build/fuzz")
        kept.mkdir(parents=True, exist_ok=True)
        atheris.Setup(
            [
                name,
                f"-max_total_time={limit_s}",
                "-max_len=8192",
                "-timeout=5",
                "-verbosity=0",
                "-print_final_stats=1",
                f"-artifact_prefix={kept}/{name}-",
                corpus,
            ],
            target.judge,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
