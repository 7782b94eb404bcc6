"""`python -m deploy.generate`: writes the manifests that follow from the code. tests/tidy fails where one is stale.

Owns which file has which objects. Must not decide anything about them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from services.webhook.access import default_access
from services.webhook.configuration import Reach, Wish, mutating, validating
from shared.manifests.crd.definition import definitions, network_attachment_definition

HERE = Path(__file__).parent
HEADER = "# Made by `python -m deploy.generate`; edit the code that it comes from.\n"


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key and texts on one line, as people write manifests."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text_of(*objects: dict[str, Any]) -> str:
    """The objects as one file."""
    documents = [
        yaml.dump(one, Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True) for one in objects
    ]
    return HEADER + "---\n".join(documents)


def kustomization(*resources: str) -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(resources),
    }


def files() -> dict[Path, str]:
    """Every generated file, below deploy/, and what it must say."""
    crds = {f"{name}.yaml": text_of(one) for name, one in definitions().items()}
    networks = network_attachment_definition()
    networks_file = f"{networks['metadata']['name']}.yaml"
    return {
        **{Path("crds") / name: text for name, text in crds.items()},
        Path("crds/kustomization.yaml"): text_of(kustomization(*sorted(crds))),
        Path("crds/multus") / networks_file: text_of(networks),
        Path("base/webhook/webhook-configurations.yaml"): text_of(
            validating(Reach(), Wish()), mutating(Reach(), Wish())
        ),
        Path("base/webhook/rbac.yaml"): text_of(*default_access()),
        Path("crds/multus/kustomization.yaml"): text_of(kustomization(networks_file)),
    }


def main() -> int:
    for path, text in files().items():
        target = HERE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            print(f"deploy/{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
