"""What the RDMA service makes of sysfs, with and without hardware."""

from __future__ import annotations

from pathlib import Path

from services.rdma.devices import SysfsDevices
from shared.contracts.inventory import RdmaDevice, RdmaPort
from tests.support.sysfs import remove_device, write_sysfs


def read(sysfs: Path) -> dict[str, RdmaDevice]:
    return {device.name: device for device in SysfsDevices(sysfs).read()}


def test_a_physical_function(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    assert read(tmp_path)["mlx5_0"] == RdmaDevice(
        name="mlx5_0",
        node_guid="0c42:a103:0016:054c",
        ports=(RdmaPort(number=1, state="ACTIVE", link_layer="Ethernet", gids=3, pkeys=1),),
        netdevs=("ens1f0np0",),
        pci_address="0000:5e:00.0",
        numa_node=1,
    )


def test_a_virtual_function_names_its_physical_one(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    device = read(tmp_path)["mlx5_2"]
    assert device.physical_function == "mlx5_0"
    assert device.pci_address == "0000:5e:00.2"
    assert device.netdevs == ("ens1f0v0",)
    # a fresh VF has no GUID and no GID until somebody gives it one
    assert device.node_guid == "0000:0000:0000:0000"
    assert device.ports[0].gids == 0


def test_a_virtual_function_of_a_function_without_driver_names_its_address(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    remove_device(tmp_path, "mlx5_0")
    assert read(tmp_path)["mlx5_2"].physical_function == "0000:5e:00.0"


def test_an_infiniband_port(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    port = read(tmp_path)["mlx5_1"].ports[0]
    assert (port.link_layer, port.state) == ("InfiniBand", "INIT")


def test_soft_roce_has_a_link_and_no_pci_function(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    device = read(tmp_path)["rxe0"]
    assert device.netdevs == ("eth1",)
    assert (device.pci_address, device.physical_function, device.numa_node) == ("", "", -1)


def test_devices_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    assert [device.name for device in SysfsDevices(tmp_path).read()] == ["mlx5_0", "mlx5_1", "mlx5_2", "rxe0"]


def test_a_kernel_without_rdma_has_no_devices(tmp_path: Path) -> None:
    assert SysfsDevices(tmp_path).read() == ()


def test_a_device_that_is_going_away_is_shown_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    write_sysfs(tmp_path)
    home = (tmp_path / "class/infiniband/mlx5_0").resolve()
    (home / "ports/1/state").unlink()
    (home / "node_guid").unlink()
    (tmp_path / "class/infiniband/dangling").symlink_to(tmp_path / "nowhere")
    device = read(tmp_path)["mlx5_0"]
    assert device.node_guid == "" and device.ports[0].state == ""
    assert "dangling" not in read(tmp_path)


def test_this_machines_own_sysfs_can_be_read() -> None:
    for device in SysfsDevices(Path("/sys")).read():
        assert device.name
