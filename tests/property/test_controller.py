"""The controller as a machine: whatever is done to the folder, a follower of the facts holds what is in force.

Files come and go, break and mend, move objects, hide; the allocator answers or does not; the process is killed and started.
"""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.controller.objects import metadata
from shared.contracts.facts import ObjectFact
from shared.manifests.document import ObjectKey
from tests.support.folder import World, config, decoded, lease, pod, pool, subnet

FILES = ("a", "b", "c")
DOCUMENTS = st.one_of(
    st.builds(
        pool,
        st.sampled_from(("p1", "p2")),
        st.sampled_from(
            ("10.6.0.1-10.6.0.4", "10.6.0.1-10.6.0.8", "10.6.0.5-10.6.0.8", "10.6.0.9", "10.7.0.1")
        ),
    ),
    st.builds(
        pod,
        st.sampled_from(("w1", "w2")),
        uid=st.sampled_from(("", "u1", "u2")),
        node=st.sampled_from(("n1", "n2")),
    ),
    st.builds(subnet, st.just("s1"), st.sampled_from(("10.6.0.1-10.6.0.4", "10.6.0.1-10.6.0.9"))),
    st.builds(
        config, enableValidatingResourcesDeletedWebhook=st.booleans(), enableSpiderSubnet=st.booleans()
    ),
    st.sampled_from(
        (
            "kind: [unclosed\n",
            "just text\n",
            "",
            "a: 1\n---\n",
            "kind: Pod\napiVersion: v1\nmetadata: {name: 7}\n",
        )
    ),
)
LEASES = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(("10.6.0.1", "10.6.0.4", "10.6.0.7")), min_size=1, unique=True).map(
            lambda addresses, name=name: tuple(lease(one, name) for one in addresses)
        )
        for name in ("p1", "p2")
    },
)


class Controller(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(name=st.sampled_from(FILES), documents=st.lists(DOCUMENTS, min_size=1, max_size=3))
    def write(self, name: str, documents: list[str]) -> None:
        self.world.look(**{name: "---\n".join(documents)})

    @rule(name=st.sampled_from(FILES))
    def remove(self, name: str) -> None:
        if f"{name}.yaml" in self.world.texts:
            self.world.look(**{name: None})

    @rule(hidden=st.sampled_from(((), ("a.yaml",), ("",), ("b.yaml", "c.yaml"))))
    def hide(self, hidden: tuple[str, ...]) -> None:
        self.world.unreadable = dict.fromkeys(hidden, "Input/output error")
        self.world.look()

    @rule(leases=st.none() | LEASES)
    def allocate(self, leases: dict[str, tuple] | None) -> None:
        self.world.leases = leases
        self.world.look()

    @rule()
    def collect(self) -> None:
        self.world.collect()
        self.world.look()

    @rule()
    def restart(self) -> None:
        before = dict(self.world.consumer.objects)
        self.world.restart()
        self.world.look()
        # what nobody touched is not told again, but for what the restart judges anew
        told = {key: fact for key, fact in self.world.consumer.objects.items() if before.get(key) != fact}
        for key, fact in told.items():
            if key in before:
                assert decoded(fact) != decoded(before[key])

    @invariant()
    def the_follower_holds_what_is_in_force(self) -> None:
        in_force = {key: stored.fact() for key, stored in self.world.objects.in_force.items()}
        assert _without_lines(self.world.consumer.objects) == _without_lines(in_force)

    @invariant()
    def nothing_is_told_twice(self) -> None:
        if self.world.objects.version:
            seen = self.world.consumer.version
            self.world.look()
            assert self.world.consumer.version == seen

    @invariant()
    def metadata_agrees_with_the_envelope(self) -> None:
        for fact in self.world.consumer.objects.values():
            assert isinstance(fact, ObjectFact)
            meta = metadata(decoded(fact))
            assert meta.get("uid", "") == fact.uid
            assert meta["resourceVersion"] == str(fact.version)
            assert meta["name"] == fact.name and meta.get("namespace", "") == fact.namespace

    @invariant()
    def a_problem_names_its_place(self) -> None:
        for problem in self.world.problems:
            assert problem.file and problem.message


def _without_lines(facts: dict[ObjectKey, ObjectFact]) -> dict[ObjectKey, ObjectFact]:
    """A line that moved is not worth a fact; a file is, because after a restart it keeps what it gave."""
    return {
        key: msgspec.structs.replace(fact, source=fact.source.rpartition(":")[0])
        for key, fact in facts.items()
    }


TestController = Controller.TestCase
TestController.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
