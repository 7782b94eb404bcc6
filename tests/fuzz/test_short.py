"""The fuzzing of `make fuzz` in short, from a fixed seed; and that it finds what it is there to find."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cni.wire import Wire
from services.agent import config, record
from services.webhook import review
from shared.manifests import annotations
from shared.manifests.document import parse
from tests.fuzz import run as fuzz
from tests.fuzz.structured import STRUCTURED
from tests.fuzz.target import TARGETS, Target

INPUTS = 12_000
"""In all: a few seconds."""
EVERYTHING = (*TARGETS, *STRUCTURED)


@pytest.mark.parametrize("target", EVERYTHING, ids=lambda target: target.name)
def test_no_input_breaks_a_promise(target: fuzz.Target | fuzz.Structured) -> None:
    count = fuzz.run(target, max(INPUTS * target.share // 1000, 40), "ci")
    assert count.inputs > 0


def test_the_shares_are_the_whole() -> None:
    assert sum(target.share for target in EVERYTHING) == 1000
    assert len(set(fuzz.names())) == len(EVERYTHING)


def test_what_is_good_is_taken() -> None:
    """Else all of the fuzzing would look at the first refusal only."""
    seeds = {target.name: target.seeds for target in TARGETS}
    for seed in seeds["review"]:
        review.decode(seed)
    for seed in seeds["manifests"]:
        file = parse(seed, "x.yaml")
        assert file.documents and not any(document.errors for document in file.documents), file
    assert len(record.replay(seeds["journal"][0]).entries) == 1
    assert not record.replay(seeds["journal"][0]).problems
    assert sum(bool(Wire().feed(seed)) for seed in seeds["wire"][:5]) == 4
    taken = 0
    for seed in seeds["stdin"]:
        for plugin in ("orbweaver", "spiderpool", "coordinator", "ifacer"):
            with contextlib.suppress(Exception):
                config.parse(seed, plugin)
                taken += 1
    assert taken >= 6
    assert not hasattr(annotations.ippools(seeds["annotations"][1].decode()), "errors")


def _judge_with_a_bug(data: bytes) -> None:
    if b"10.6.0.1" in data and b"\xff\xff" in data:
        raise KeyError("planted")


def test_a_planted_bug_is_found_made_small_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = Target(
        name="planted",
        share=0,
        seeds=(b"address 10.6.0.1 and so on",),
        judge=_judge_with_a_bug,
        words=(b"\xff\xff",),
    )
    with pytest.raises(fuzz.Failure, match="planted") as failure:
        fuzz.run(target, 50_000, "ci")
    kept = (tmp_path / fuzz.KEPT / "planted.input").read_bytes()
    assert "--replay" in str(failure.value)
    assert "KeyError" in fuzz.judged(target.judge, kept)
    assert len(kept) <= len(b"10.6.0.1\xff\xff")


def test_the_same_seed_makes_the_same_inputs() -> None:
    target = TARGETS[0]
    assert [fuzz.made(target, "a", n) for n in range(50)] == [fuzz.made(target, "a", n) for n in range(50)]
    assert [fuzz.made(target, "a", n) for n in range(50)] != [fuzz.made(target, "b", n) for n in range(50)]


def test_what_is_slow_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SLOW_S", 0.0)
    assert "it took" in fuzz.judged(lambda _: sum(range(10_000)), b"")


def test_the_command_counts_and_replays(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.fuzz", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    done = run("--inputs", "200", "--target", "tokens", "--seed", "ci")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["inputs"], told["ok"]) == (200, True)
    good = tmp_path / "input"
    good.write_bytes(b"n1")
    assert run("--target", "tokens", "--replay", str(good)).returncode == 0
    assert run("--replay", str(good)).returncode == 2
