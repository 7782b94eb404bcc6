from __future__ import annotations

from services.agent.sandbox import REMEMBERED, Sandboxes


def test_an_older_sandbox_of_a_pod_is_known_as_such() -> None:
    sandboxes = Sandboxes((), "boot")
    assert sandboxes.enter("u1", "old", 10)
    assert sandboxes.enter("u1", "new", 20)
    assert not sandboxes.enter("u1", "old", 10), "a repetition of the older one"
    assert sandboxes.enter("u1", "new", 15), "another interface's call of the newest"
    assert not sandboxes.enter("u1", "old", 19)
    assert sandboxes.enter("u2", "old", 5), "another pod"


def test_a_container_without_pod_has_no_newer_one_and_memory_is_bounded() -> None:
    sandboxes = Sandboxes((), "boot")
    assert sandboxes.enter("", "a", 20) and sandboxes.enter("", "b", 10)
    for number in range(2 * REMEMBERED):
        assert sandboxes.enter(f"u{number}", "a", number)
    assert len(sandboxes._newest) == REMEMBERED
