"""A folder of manifests without a disk: texts in, judgement out, and a consumer that folds the facts as an allocator does.

Everything but the clock and the leases is the product's own code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from services.controller.judge import Judgement, judge, leaving
from services.controller.merge import merge
from services.controller.objects import Objects, Stored
from services.controller.rules import AdmissionRules
from shared.admission.verdict import Verdict
from shared.contracts.facts import Fact, FactsSynced, ObjectFact, ObjectGone, SourceProblem
from shared.contracts.query import LeaseView
from shared.manifests.document import Document, ManifestFile, ObjectKey, parse
from shared.manifests.meta import Json

POOL = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {{name: {name}}}
spec:
  subnet: {subnet}
  ips: [{ips}]
"""
SUBNET = POOL.replace("SpiderIPPool", "SpiderSubnet")
POD = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}{uid}}}\nspec: {{nodeName: {node}}}\n"


def pool(name: str, ips: str = "10.6.0.10-10.6.0.20", subnet: str = "10.6.0.0/16") -> str:
    return POOL.format(name=name, ips=ips, subnet=subnet)


def subnet(name: str, ips: str = "10.6.0.1-10.6.0.200", subnet: str = "10.6.0.0/16") -> str:
    return SUBNET.format(name=name, ips=ips, subnet=subnet)


def pod(name: str, namespace: str = "shop", uid: str = "", node: str = "n1") -> str:
    return POD.format(name=name, namespace=namespace, uid=f", uid: {uid}" if uid else "", node=node)


def config(**settings: object) -> str:
    text = "".join(f"    {key}: {str(value).lower()}\n" for key, value in settings.items())
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: spiderpool-conf, namespace: kube-system}}\ndata:\n  conf.yml: |\n{text}"


def lease(address: str, pool: str, pod: str = "web-0") -> LeaseView:
    return LeaseView(address=address, pool=pool, interface="eth0", pod_namespace="shop", pod_name=pod)


@lru_cache(maxsize=4096)
def _parse(text: str, path: str) -> ManifestFile:
    return parse(text, path)


class Consumer:
    """What somebody who follows FACTS holds: an older version is ignored, a tombstone takes away the UID that it names."""

    def __init__(self) -> None:
        self.last: dict[ObjectKey, ObjectFact | ObjectGone] = {}
        self.version = 0

    def fold(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            assert fact.version > self.version, "versions only rise"
            self.version = fact.version
            if not isinstance(fact, FactsSynced):
                self.last[ObjectKey(fact.kind, fact.namespace, fact.name)] = fact

    @property
    def objects(self) -> dict[ObjectKey, ObjectFact]:
        return {key: fact for key, fact in self.last.items() if isinstance(fact, ObjectFact)}


class World:
    """A controller over texts. `leases` are by pool; None for a pool, or for all, is an allocator that does not answer."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.texts: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}
        self.leases: Mapping[str, tuple[LeaseView, ...]] | None = {}
        self.consumer = Consumer()
        self.now_s = 1_700_000_000.0
        self.problems: tuple[SourceProblem, ...] = ()
        self.warnings: tuple[SourceProblem, ...] = ()
        self._files: dict[str, ManifestFile] = {}
        self._begin(facts)

    def _begin(self, facts: Iterable[Fact]) -> None:
        self.objects = Objects(facts, first_version=1000)
        self.rules = AdmissionRules(self.objects.in_force)
        self.admitted: dict[ObjectKey, Json] = {}
        self.noted: dict[ObjectKey, Verdict] = {}
        self.wanted: dict[ObjectKey, Document] = {}

    def restart(self) -> None:
        """A new process: all that it knows is the last fact of each subject and the files that it can read."""
        self._files = {}
        self._begin(list(self.consumer.last.values()))

    def look(self, **texts: str | None) -> list[Fact]:
        """Writes (or with None removes) `<key>.yaml` for each argument, then does one pass."""
        for name, text in texts.items():
            if text is None:
                del self.texts[f"{name}.yaml"]
            else:
                self.texts[f"{name}.yaml"] = text
        self.now_s += 1
        for path in list(self._files):
            if path not in self.texts and not self._hidden(path):
                del self._files[path]
        for path, text in self.texts.items():
            if not self._hidden(path):
                self._files[path] = _parse(text, path)
        wish = merge(self._files, self.unreadable, self.objects.in_force)
        self.wanted = wish.wanted
        held = {
            key.name: None if self.leases is None else self.leases.get(key.name, ())
            for key in self.objects.in_force
            if key.kind == "SpiderIPPool"
        }
        judgement: Judgement = judge(
            self.objects, wish, self.admitted, self.noted, self.rules, held, self.now_s
        )
        self.warnings = judgement.warnings
        self.problems = (*wish.problems, *judgement.problems)
        self.consumer.fold(judgement.facts)
        return list(judgement.facts)

    def collect(self) -> list[Fact]:
        """Takes away terminating pools that hold no lease."""
        facts: list[Fact] = []
        for key, stored in list(self.objects.in_force.items()):
            gone = self.leases is not None and not self.leases.get(key.name)
            if leaving(stored, self.wanted.get(key)) and gone:
                facts += self.objects.remove(key)
                self.rules.remove(key)
        self.consumer.fold(facts)
        return facts

    def _hidden(self, path: str) -> bool:
        return "" in self.unreadable or path in self.unreadable

    def stored(self, kind: str, name: str, namespace: str = "") -> Stored | None:
        return self.objects.in_force.get(ObjectKey(kind, namespace, name))

    def spec(self, kind: str, name: str, namespace: str = "") -> Json:
        stored = self.stored(kind, name, namespace)
        assert stored is not None, f"{kind} {name} is not in force: {self.problems}"
        return dict(stored.raw["spec"])

    @property
    def names(self) -> set[str]:
        return {str(key) for key in self.objects.in_force}


def decoded(fact: ObjectFact) -> Json:
    return dict(msgspec.json.decode(fact.object))
