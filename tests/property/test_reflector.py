"""The reflector against a model of an API server: whatever is lost, cut short, expired or looked up, it ends with what is there.

The server keeps a history, serves pages of a list at one version while objects change, forgets history, ends watches, does not answer.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.controller.reflector import (
    DOUBT_MIN,
    Gone,
    Item,
    List,
    Name,
    Page,
    Put,
    Reflector,
    Watch,
    backoff_s,
)

NAMES = [("", f"n{i}") for i in range(8)]
names = st.sampled_from(NAMES)


class Server:
    def __init__(self) -> None:
        self.version = 10
        self.objects: dict[Name, Item] = {}
        self.history: list[tuple[int, str, Name, Item]] = []
        self.forgotten = 0
        self.uids = 0

    def write(self, name: Name, body: bytes) -> None:
        self.version += 1
        known = self.objects.get(name)
        if known is None:
            self.uids += 1
        uid = known.uid if known is not None else f"u{self.uids}"
        item = Item(uid, self.version, body)
        self.objects[name] = item
        self.history.append((self.version, "put", name, item))

    def delete(self, name: Name) -> None:
        self.version += 1
        item = self.objects.pop(name)
        self.history.append((self.version, "deleted", name, Item(item.uid, self.version, item.body)))


def copy(item: Item) -> Item:
    """As it comes off the wire: an object of its own."""
    return Item(item.uid, item.resource_version, item.body)


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.told: dict[Name, tuple[str, bytes]] = {}
        self.ended: set[str] = set()
        self.listing: list[tuple[Name, Item]] = []
        self.list_version = 0
        self.at = 0

    @initialize(known=st.lists(names, unique=True))
    def begin(self, known: list[Name]) -> None:
        resumed = [(name, Item(f"old-{name[1]}", 0, b"old", version=1)) for name in known]
        self.told = {name: (item.uid, item.body) for name, item in resumed}
        self.reflector = Reflector(resumed)
        self.request: List | Watch = self.reflector.start()

    def take(self, changes: list[Put | Gone]) -> None:
        for change in changes:
            match change:
                case Put():
                    said = (change.item.uid, change.item.body)
                    assert self.told.get(change.name) != said, "nothing is told twice"
                    assert change.item.uid not in self.ended, "what is gone does not come again"
                    before = self.told.get(change.name)
                    if before is not None and before[0] != change.item.uid:
                        self.ended.add(before[0])
                    self.told[change.name] = said
                case Gone():
                    assert self.told.pop(change.name)[0] == change.item.uid
                    self.ended.add(change.item.uid)

    @rule(name=names, body=st.binary(max_size=1))
    def write(self, name: Name, body: bytes) -> None:
        self.server.write(name, body)

    @precondition(lambda self: self.server.objects)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.server.delete(data.draw(st.sampled_from(sorted(self.server.objects))))

    @precondition(lambda self: isinstance(self.request, List))
    @rule(size=st.integers(1, 5))
    def page(self, size: int) -> None:
        assert isinstance(self.request, List)
        if not self.request.continued:
            self.listing = [(name, copy(item)) for name, item in sorted(self.server.objects.items())]
            self.list_version = self.server.version
        at = int(self.request.continued or 0)
        size = size if self.request.limit else len(self.listing)
        more = str(at + size) if at + size < len(self.listing) else ""
        step = self.reflector.page(
            Page(
                items=self.listing[at : at + size],
                resource_version=str(self.list_version),
                continued=more,
            )
        )
        self.take(step.changes)
        self.request = step.then
        if isinstance(step.then, Watch):
            assert step.then.resource_version == str(self.list_version)

    @precondition(lambda self: isinstance(self.request, Watch))
    @rule(count=st.integers(0, 6), end=st.sampled_from(["on", "ended", "failed"]), dice=st.floats(0, 0.99))
    def watch(self, count: int, end: str, dice: float) -> None:
        """The next events from where it asks; then it goes on, ends in order, or breaks."""
        assert isinstance(self.request, Watch)
        start = int(self.request.resource_version)
        if start < self.server.forgotten:
            self.request = self.reflector.expired(dice)
            return
        sent = [event for event in self.server.history if event[0] > start][:count]
        for version, verb, name, item in sent:
            if verb == "put":
                self.take(self.reflector.put(name, copy(item)))
            else:
                self.take(self.reflector.deleted(name, item.uid, version))
        if not sent and start < self.server.version and not count:
            pass
        elif len(sent) < count:
            self.reflector.bookmark(str(self.server.version))
        if end == "failed":
            self.request = self.reflector.failed(dice)
        else:
            self.request = self.reflector.ended(end == "on", dice)

    @rule(name=names)
    def look_up(self, name: Name) -> None:
        found = self.server.objects.get(name)
        self.take(self.reflector.looked_up(name, copy(found) if found is not None else None))

    @precondition(lambda self: isinstance(self.request, List))
    @rule(dice=st.floats(0, 0.99))
    def page_is_lost(self, dice: float) -> None:
        self.request = self.reflector.failed(dice)

    @precondition(lambda self: isinstance(self.request, List) and self.request.continued)
    @rule(dice=st.floats(0, 0.99))
    def page_is_expired(self, dice: float) -> None:
        self.request = self.reflector.expired(dice)

    @rule()
    def forget(self) -> None:
        self.server.forgotten = self.server.version

    @precondition(lambda self: isinstance(self.request, Watch))
    @rule()
    def relist(self) -> None:
        self.request = self.reflector.relist()

    @invariant()
    def told_is_held(self) -> None:
        if hasattr(self, "reflector"):
            held = {name: (item.uid, item.body) for name, item in self.reflector.items.items()}
            assert held == self.told

    def teardown(self) -> None:
        if not hasattr(self, "reflector"):
            return
        for _ in range(6):
            if isinstance(self.request, List):
                self.page(100)
            else:
                self.watch(1000, "on", 0.0)
        if isinstance(self.request, List):
            self.page(100)
        self.watch(1000, "on", 0.0)
        assert self.reflector.synced
        there = {name: (item.uid, item.body) for name, item in self.server.objects.items()}
        assert self.told == there


Protocol.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestReflector = Protocol.TestCase


def listed(reflector: Reflector, count: int, version: int = 1) -> list[Put | Gone]:
    items = [(("", f"o{i}"), Item(f"u{i}", 1, b"")) for i in range(count)]
    step = reflector.page(Page(items=items, resource_version=str(version)))
    return step.changes


def test_a_list_that_suddenly_lacks_much_is_asked_for_again_before_anything_goes() -> None:
    reflector = Reflector()
    reflector.start()
    listed(reflector, 100)
    reflector.relist()
    step = reflector.page(Page(items=[], resource_version="5"))
    assert step.changes == []
    assert isinstance(step.then, List)
    assert step.then.after_s > 0
    assert len(reflector.items) == 100
    assert len(listed(reflector, 100)) == 0, "it was a mistake: nothing is told"

    reflector.relist()
    reflector.page(Page(items=[], resource_version="6"))
    step = reflector.page(Page(items=[], resource_version="7"))
    assert len(step.changes) == 100, "said twice, it is believed"
    assert isinstance(step.then, Watch)


def test_a_few_go_at_once() -> None:
    reflector = Reflector()
    reflector.start()
    listed(reflector, 10)
    reflector.relist()
    assert len(listed(reflector, 10 - DOUBT_MIN)) == DOUBT_MIN


def test_versions_of_a_restored_store_count_from_further_back() -> None:
    reflector = Reflector([(("", "a"), Item("u", 900, b"new", version=1))])
    reflector.start()
    step = reflector.page(Page(items=[(("", "a"), Item("u", 10, b"old"))], resource_version="10"))
    assert [change.item.body for change in step.changes] == [b"old"]
    assert reflector.put(("", "a"), Item("u", 11, b"newer"))


def test_a_kind_that_is_not_served_is_empty_when_it_is_said_twice() -> None:
    reflector = Reflector([(("", "a"), Item("u", 1, b"", version=1))])
    reflector.start()
    assert reflector.absent().changes == []
    assert not reflector.synced
    assert len(reflector.absent().changes) == 1
    assert reflector.synced


def test_the_pause_grows_and_has_a_bound() -> None:
    pauses = [backoff_s(failures, 0.5) for failures in range(1, 40)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.3
    assert pauses[-1] <= 30
