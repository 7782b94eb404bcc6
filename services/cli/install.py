"""`orbweaver cni install`: the shim, its configuration and credential, where a container runtime looks for plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from cni.install import default_conflist
from cni.install import install as write
from services.cli import output
from services.cli.failure import CommandError, UsageError
from services.cli.option import DEFAULT_STATE, State
from services.cli.system import read
from services.standalone.assembly import shim_settings


def install(
    *,
    directory: Annotated[
        Path, Parameter(name="--dir", help="Where the runtime looks for plugins, such as /opt/cni/bin.")
    ],
    node: Annotated[
        str, Parameter(help="The node that the runtime runs on; needed when the system has several.")
    ] = "",
    conflist: Annotated[
        Path | None,
        Parameter(
            help="Write a network configuration here too, such as /etc/cni/net.d/10-underlay.conflist."
        ),
    ] = None,
    parent: Annotated[str, Parameter(help="The parent link that the network configuration names.")] = "eth1",
    network: Annotated[str, Parameter(help="The network's name in that configuration.")] = "underlay",
    multi_network: Annotated[
        bool,
        Parameter(
            help="Let that configuration be the node's only one: the further networks that a pod's annotation "
            "k8s.v1.cni.cncf.io/networks names are attached as well, without Multus.",
        ),
    ] = False,
    state: State = DEFAULT_STATE,
) -> int:
    file, credentials = read(state)
    names = [one.name for one in file.nodes]
    if not node and len(names) > 1:
        raise UsageError(f"the system has the nodes {', '.join(names)}: say which with --node")
    node = node or names[0]
    if node not in names:
        raise CommandError(f"the system has no node {node!r}, but {', '.join(names)}")
    settings = msgspec.structs.asdict(shim_settings(node, file.ports, credentials, file.shim_netns))
    text = default_conflist(network, parent, multi_network=multi_network) if conflist is not None else None
    try:
        written = write(directory.absolute(), **settings, conflist=conflist, conflist_text=text)
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}") from None
    for path in written:
        output.say(f"wrote {path}")
    output.say(
        f"a runtime on node {node} that execs {directory.absolute() / 'orbweaver'} is now answered by that node's agent"
    )
    if conflist is None:
        output.say("next: name it in a network configuration, or let --conflist FILE write one")
    else:
        output.say(
            f"next: set `master` in {conflist} to a link of the node, and start a container on network {network}"
        )
    return 0
