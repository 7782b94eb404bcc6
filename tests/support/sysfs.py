"""A folder that looks like /sys with RDMA: a ConnectX-5 port with one virtual function, a second port without, and soft-RoCE.

Recorded from such machines (names and layout; GUIDs and GIDs altered), as no machine of ours has the hardware.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"
_LINK_LOCAL = "fe80:0000:0000:0000:0e42:a1ff:fe16:054c"
_MAPPED = "0000:0000:0000:0000:0000:ffff:0a06:000c"
_BUS = "devices/pci0000:5d/0000:5d:00.0"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _device(
    sysfs: Path, home: Path, guid: str, state: str, link_layer: str, gids: list[str], ndev: str
) -> None:
    _write(home / "node_guid", guid)
    _write(home / "node_type", "1: CA")
    port = home / "ports" / "1"
    _write(port / "state", state)
    _write(port / "phys_state", "5: LinkUp")
    _write(port / "link_layer", link_layer)
    for i in range(8):
        _write(port / "gids" / str(i), gids[i] if i < len(gids) else _NO_GID)
        if i < len(gids) and ndev:
            _write(port / "gid_attrs" / "ndevs" / str(i), ndev)
    for i, pkey in enumerate(("0xffff", "0x0000", "0x0000")):
        _write(port / "pkeys" / str(i), pkey)
    _link(sysfs / "class" / "infiniband" / home.name, home)


def _function(sysfs: Path, address: str, netdev: str) -> Path:
    function = sysfs / _BUS / address
    _write(function / "numa_node", "1")
    if netdev:
        (function / "net" / netdev).mkdir(parents=True)
    return function


def write_sysfs(sysfs: Path) -> None:
    pf = _function(sysfs, "0000:5e:00.0", "ens1f0np0")
    home = pf / "infiniband" / "mlx5_0"
    _device(
        sysfs,
        home,
        "0c42:a103:0016:054c",
        "4: ACTIVE",
        "Ethernet",
        [_LINK_LOCAL, _LINK_LOCAL, _MAPPED],
        "ens1f0np0",
    )
    _link(home / "device", pf)

    vf = _function(sysfs, "0000:5e:00.2", "ens1f0v0")
    home = vf / "infiniband" / "mlx5_2"
    _device(sysfs, home, "0000:0000:0000:0000", "1: DOWN", "Ethernet", [], "")
    _link(home / "device", vf)
    _link(vf / "physfn", pf)
    _link(pf / "virtfn0", vf)

    ib = _function(sysfs, "0000:5e:00.1", "ibs1f1")
    home = ib / "infiniband" / "mlx5_1"
    _device(sysfs, home, "0c42:a103:0016:054d", "2: INIT", "InfiniBand", [_LINK_LOCAL], "")
    _link(home / "device", ib)

    home = sysfs / "devices/virtual/infiniband/rxe0"
    _device(sysfs, home, "5054:00ff:fe12:3456", "4: ACTIVE", "Ethernet", [_LINK_LOCAL, _MAPPED], "eth1")
    _write(home / "parent", "eth1")


def remove_device(sysfs: Path, name: str) -> None:
    link = sysfs / "class" / "infiniband" / name
    shutil.rmtree(link.resolve())
    link.unlink()
