"""No manifest stops the controller: whatever stands where, an object comes into force or is a problem with its place."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.folder import World, config, pod, pool, subnet

MULTUS = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata: {name: m, namespace: kube-system, annotations: {multus.spidernet.io/cni-version: 0.3.1}}
spec:
  cniType: macvlan
  enableCoordinator: true
  macvlan:
    master: [eth1]
    vlanID: 5
    bond: {name: b, mode: 1, options: "a=b"}
    ippools: {ipv4: [rack], ipv6: []}
  coordinator: {mode: auto, hijackCIDR: [10.0.0.1], policyRoutes: [{dst: 10.0.0.0/8, gw: 10.0.0.1}]}
  chainCNIJsonData: ['{"type": "tuning"}']
"""
COORDINATOR = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderCoordinator
metadata: {name: default}
spec: {mode: auto, podCIDRType: none, hijackCIDR: [10.0.0.1], podMACPrefix: "0a:1b", podRPFilter: 0}
"""
RESERVED = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderReservedIP
metadata: {name: r}
spec: {ips: [10.6.0.5, 10.6.0.6]}
"""
ENDPOINT = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderEndpoint
metadata: {name: e, namespace: shop}
status: {current: {uid: u, node: n1, ips: [{interface: eth0, ipv4: 10.6.0.1/16}]}, ownerControllerType: Pod, ownerControllerName: p}
"""
ANNOTATED = pod("web-0").replace(
    "namespace: shop",
    "namespace: shop, ownerReferences: [{kind: ReplicaSet, name: r, uid: u, controller: true}], annotations: {"
    "ipam.spidernet.io/ippool: '{\"ipv4\": [\"rack\"]}', k8s.v1.cni.cncf.io/networks: 'a/b@net1'}",
)
RICH_POOL = pool("rack") + (
    "  gateway: 10.6.0.1\n  routes: [{dst: 10.7.0.0/16, gw: 10.6.0.2}]\n  podAffinity: {matchLabels: {app: a}}\n"
    "  namespaceName: [shop]\n  excludeIPs: [10.6.0.11]\n"
)
GOOD = [
    "\n---\n".join((subnet("s"), RICH_POOL)),
    ANNOTATED,
    MULTUS,
    COORDINATOR,
    RESERVED,
    ENDPOINT,
    config(enableIPv4=True, podResourceInject="{}"),
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {ipam.spidernet.io/default-ipv4-ippool: '[\"rack\"]'}}\n",
    "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {taints: [{key: a}]}\n",
    "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: x}\nspec: {replicas: 2, template: {metadata: {labels: {a: b}}}}\n",
    "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: m, namespace: kube-system}\nspec: {config: '{}'}\n",
]
GARBAGE = st.sampled_from(
    (
        None,
        True,
        0,
        -1,
        2**70,
        1.5,
        "",
        "x",
        "10.6.0.1",
        "::1",
        "%",
        [],
        [None],
        [[]],
        [1, "a"],
        {},
        {"a": None},
        {"": {}},
        "é" * 300,
    )
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], garbage: Any) -> Any:
    if not path:
        return garbage
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], garbage)
    return copy


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_garbage_in_any_place_is_in_force_or_a_problem(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(GOOD))
    documents = [msgspec.yaml.decode(part) for part in text.split("\n---\n")]
    world = World()
    if data.draw(st.booleans()):
        world.look(a=text)
        assert not world.problems
    i = data.draw(st.integers(0, len(documents) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(documents[i])
        documents[i] = _with(documents[i], data.draw(st.sampled_from(places)), data.draw(GARBAGE))
    text = "---\n".join(msgspec.json.encode(one).decode() + "\n" for one in documents)
    world.look(a=text)
    empty = sum(one is None for one in documents)
    told = {problem.object for problem in world.problems}
    assert len(world.names) + len(world.problems) + empty >= len(documents), (told, world.names)
    for problem in world.problems:
        assert problem.file == "a.yaml" and problem.message
    world.look(a=None)
    world.restart()
    world.look()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_a_text_cut_or_scrambled_anywhere_stops_nothing(text: str, data: st.DataObject) -> None:
    world = World()
    world.look(a=text)
    at = data.draw(st.integers(0, len(text)))
    rest = data.draw(st.text(alphabet="\x00\t\n -:[]{}'\"&*!|>%@`é\ud7ff", max_size=4))
    world.look(a=text[:at] + rest + data.draw(st.sampled_from(("", text[at:]))))
    assert all(problem.message for problem in world.problems)
