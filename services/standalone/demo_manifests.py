"""The demo's manifests: ordinary YAML, as a user of a cluster writes it.

Owns their text and the folder that holds them. Must not know how they take effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NAMESPACE = "shop"
IPV4_SUBNET, IPV4_GATEWAY = "172.28.0.0/16", "172.28.0.1"
IPV6_SUBNET, IPV6_GATEWAY = "fd00:28::/64", "fd00:28::1"

_POOL = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: underlay-v{version}
spec:
  ipVersion: {version}
  subnet: {subnet}
  gateway: {gateway}
  ips:
    - {first}-{last}
  default: true
"""

_NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
"""

_NODE = """\
apiVersion: v1
kind: Node
metadata:
  name: {name}
"""

_POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  uid: {uid}
  labels:
    app: web
spec:
  nodeName: {node}
  containers:
    - name: web
      image: example.com/web:1
"""


class Folder:
    """The folder of manifests of one system. Writing is atomic, so a half-written file is never read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def put(self, file: str, text: str) -> None:
        # The reader takes *.yaml only, so the unfinished file under its other name does not exist for it.
        unfinished = self.path / f".{file}.unfinished"
        unfinished.write_text(text)
        unfinished.rename(self.path / file)

    def network(self, nodes: Sequence[str]) -> None:
        """Both pools, the namespace, the nodes."""
        documents = [
            _POOL.format(
                version=4, subnet=IPV4_SUBNET, gateway=IPV4_GATEWAY, first="172.28.0.10", last="172.28.15.254"
            ),
            _POOL.format(
                version=6, subnet=IPV6_SUBNET, gateway=IPV6_GATEWAY, first="fd00:28::10", last="fd00:28::ffff"
            ),
        ]
        self.put("pools.yaml", "---\n".join(documents))
        self.put("namespace.yaml", _NAMESPACE.format(name=NAMESPACE))
        self.put("nodes.yaml", "---\n".join(_NODE.format(name=node) for node in nodes))

    def pod(self, name: str, uid: str, node: str) -> None:
        self.put(f"pod-{name}.yaml", _POD.format(name=name, namespace=NAMESPACE, uid=uid, node=node))

    def remove_pod(self, name: str) -> None:
        (self.path / f"pod-{name}.yaml").unlink()
