"""Puts the shim, its configuration and its credential into a runtime's plugin directory.

    python -m cni.install --help        # as the init container of a cluster's agents does it, with a shim that was built before

Owns the names the plugin answers to, the form of orbweaver.json, and which of the two forms of the shim this machine
has. Must not know who generates credentials or which nodes exist.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from cni import freeze
from shared.subjects import cni

NAMES = ("orbweaver", "spiderpool", "coordinator", "ifacer")
"""The last three are the plugin types that a chain in Spiderpool's form names (annotations-and-config of the docs)."""
CONFIG_NAME = "orbweaver.json"


def shim_path() -> Path:
    """The executable of the shim; built when it is missing or older than its source, which takes under a second.

    Where it cannot be built, the launcher that runs the same source under python3.
    """
    try:
        return freeze.build(freeze.BUILD / "orbweaver")
    except freeze.BuildError:
        return freeze.build_launcher(freeze.BUILD / "orbweaver-python")


def install(
    directory: Path,
    *,
    server: str,
    user: str,
    password: str,
    node: str,
    subject: str,
    netns: str = "",
    conflist: Path | None = None,
    conflist_text: str | None = None,
    deadlines_s: dict[str, float] | None = None,
    shim: Path | None = None,
) -> list[Path]:
    """Returns every file written. Idempotent; a shim that runs meanwhile keeps the file it was started from.

    `server` is the leaf's numeric address and port; `netns` the path of the network namespace where that address is,
    empty for the caller's own; `deadlines_s` replaces the shim's deadlines by CNI verb. `conflist_text` goes to
    `conflist`. `shim` is an executable that was built before; without it, it is built. Raises OSError.
    """
    config: dict[str, Any] = {
        "server": server,
        "user": user,
        "password": password,
        "node": node,
        "subject": subject,
        "netns": netns,
    }
    if deadlines_s:
        config["deadlines_s"] = deadlines_s
    directory.mkdir(parents=True, exist_ok=True)
    # The configuration first: a shim that starts between two renames finds the credential that is in force.
    written = [
        _replace(directory / CONFIG_NAME, json.dumps(config, ensure_ascii=False).encode() + b"\n", 0o600)
    ]
    first = _replace(directory / NAMES[0], (shim or shim_path()).read_bytes(), 0o755)
    written.append(first)
    for name in NAMES[1:]:
        # Hard links: one file in the page cache, and each name is a regular file beside its configuration.
        fresh = _fresh(directory / name)
        fresh.unlink(missing_ok=True)
        os.link(first, fresh)
        written.append(fresh.rename(directory / name))
    if conflist is not None and conflist_text is not None:
        conflist.parent.mkdir(parents=True, exist_ok=True)
        written.append(_replace(conflist, conflist_text.encode(), 0o644))
    return written


def default_conflist(
    name: str = "underlay",
    parent: str = "eth1",
    pools: dict[str, list[str]] | None = None,
    *,
    multi_network: bool = False,
) -> str:
    """A network of the native form on `parent`; `pools` by family (`ipv4`, `ipv6`), empty for the cluster's default. With
    `multi_network` it is the node's only one, and pods' further networks are attached by us as well."""
    plugin: dict[str, Any] = {
        "type": "orbweaver",
        "cniType": "macvlan",
        "master": [parent],
        "mtu": 0,
        "ippools": {family: (pools or {}).get(family, []) for family in ("ipv4", "ipv6")},
    }
    if multi_network:
        plugin["multiNetwork"] = "native"
    return json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}, indent=2) + "\n"


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _replace(path: Path, content: bytes, mode: int) -> Path:
    fresh = _fresh(path)
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)
    return fresh.rename(path)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cni.install", description="Installs the shim on a node.")
    parser.add_argument("--dir", type=Path, required=True, help="where the runtime looks for plugins")
    parser.add_argument("--node", required=True)
    parser.add_argument("--server", required=True, help="the node's leaf, a numeric address and port")
    parser.add_argument(
        "--password-file", type=Path, required=True, help="the password of the leaf's user `shim`"
    )
    parser.add_argument("--shim", type=Path, required=True, help="the executable")
    parser.add_argument(
        "--conflist", type=Path, help="write a network configuration here, the node's only one"
    )
    parser.add_argument("--network", default="underlay", help="that network's name")
    parser.add_argument("--parent", default="eth1", help="that network's parent link")
    arguments = parser.parse_args()
    text = default_conflist(arguments.network, arguments.parent, multi_network=True)
    try:
        written = install(
            arguments.dir,
            server=arguments.server,
            user="shim",
            password=arguments.password_file.read_text().strip(),
            node=arguments.node,
            subject=cni(arguments.node),
            conflist=arguments.conflist,
            conflist_text=text,
            shim=arguments.shim,
        )
    except OSError as error:
        print(f"{error.filename or arguments.dir}: {error.strerror}", file=sys.stderr)
        return 1
    for path in written:
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
