"""The RDMA devices of a node as the kernel shows them in sysfs: the port, and the folder behind it.

Owns the layout below /sys/class/infiniband (kernel: Documentation/ABI/stable/sysfs-class-infiniband). Must not know the bus, verbs or
who uses a device. A folder that looks like sysfs does as well as the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from shared.contracts.inventory import RdmaDevice, RdmaPort


class Devices(Protocol):
    def read(self) -> tuple[RdmaDevice, ...]:
        """Every device that is there now, by name; empty where the kernel has no RDMA. Blocks for a few ms a device."""
        ...


class SysfsDevices:
    def __init__(self, sysfs: Path) -> None:
        self._class = sysfs / "class" / "infiniband"

    def read(self) -> tuple[RdmaDevice, ...]:
        """A device that goes away while it is read is left out, or shown as far as it was read."""
        return tuple(_device(directory) for directory in _entries(self._class) if directory.is_dir())


def _device(directory: Path) -> RdmaDevice:
    pci = directory / "device"
    ports = [_port(path) for path in _entries(directory / "ports") if path.name.isdigit()]
    ports.sort(key=lambda port: port.number)
    return RdmaDevice(
        name=directory.name,
        node_guid=_text(directory / "node_guid"),
        ports=tuple(ports),
        netdevs=_netdevs(directory),
        pci_address=pci.resolve().name if pci.exists() else "",
        numa_node=_number(_text(pci / "numa_node"), -1),
        physical_function=_physical_function(pci),
    )


def _port(directory: Path) -> RdmaPort:
    """`state` without its number: the file holds `4: ACTIVE`."""
    return RdmaPort(
        number=int(directory.name),
        state=_text(directory / "state").partition(":")[2].strip(),
        link_layer=_text(directory / "link_layer"),
        gids=sum(1 for path in _entries(directory / "gids") if _text(path).strip("0:")),
        pkeys=sum(1 for path in _entries(directory / "pkeys") if _number(_text(path), 0) & 0x7FFF),
    )


def _netdevs(directory: Path) -> tuple[str, ...]:
    """Links on the device's PCI function, those its GIDs are of, and the link under a soft device (`parent`: rxe, siw)."""
    found = {path.name for path in _entries(directory / "device" / "net")}
    for port in _entries(directory / "ports"):
        # an index that holds no GID answers EINVAL
        found |= {_text(path) for path in _entries(port / "gid_attrs" / "ndevs")}
    found.add(_text(directory / "parent"))
    return tuple(sorted(found - {""}))


def _physical_function(pci: Path) -> str:
    """The RDMA device of a virtual function's physical function, its PCI address where that has none; empty for what is no VF."""
    physical = pci / "physfn"
    if not physical.exists():
        return ""
    names = [path.name for path in _entries(physical / "infiniband")]
    return names[0] if names else physical.resolve().name


def _entries(directory: Path) -> Iterator[Path]:
    try:
        return iter(sorted(directory.iterdir()))
    except OSError:
        return iter(())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(text: str, default: int) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return default
