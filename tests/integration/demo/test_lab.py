"""The demo's own instruments on the real kernel: an instrument that always says yes would prove nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, IPv6
from scapy.layers.l2 import ARP, Ether

from services.standalone import demo_exec, demo_netns, demo_reach, demo_system
from services.standalone.demo_place import Machine, Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "place", "orbdemotest-")
    with place.held(lambda: None) as left:
        assert left == 0
        yield place
    assert not place.root.exists()
    assert demo_netns.named(place.prefix) == []


@pytest.fixture
def node(place: Place) -> Path:
    demo_netns.build_switch(
        place.netns("switch").name, [place.netns("node").name], ["172.25.0.1/24", "fd00:25::1/64"]
    )
    return place.netns("node")


def test_the_machine_sees_nothing_of_the_lab(node: Path, place: Place) -> None:
    before = demo_netns.links()
    assert demo_netns.links(node) == {"lo", "eth1"}
    assert demo_netns.links() == before
    assert demo_netns.links(place.netns("switch")) == {"lo", "underlay", "port0"}


def test_reachability_tells_answers_from_silence(node: Path) -> None:
    with demo_netns.entered(node):
        demo_netns.run("ip", "addr", "add", "172.25.0.2/24", "dev", "eth1")
        demo_netns.run("ip", "addr", "add", "fd00:25::2/64", "dev", "eth1", "nodad")
    netns_of = {"172.25.0.2": node, "fd00:25::2": node}
    wanted = [("172.25.0.2", "172.25.0.1"), ("fd00:25::2", "fd00:25::1")]
    silent = [("172.25.0.2", "172.25.0.99"), ("fd00:25::2", "fd00:25::99")]
    assert demo_reach.unreachable(netns_of, wanted) == []
    assert sorted(demo_reach.unreachable(netns_of, wanted + silent, timeout_s=1.2)) == sorted(silent)


def test_pairs_are_ordered_and_per_family() -> None:
    pairs = demo_reach.ordered_pairs(
        [("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2"), ("10.0.0.3", "fd00::3")]
    )
    assert len(pairs) == len(set(pairs)) == 3 * 2 * 2
    assert ("10.0.0.2", "10.0.0.1") in pairs
    assert all((":" in source) == (":" in target) for source, target in pairs)


def test_only_gratuitous_announcements_count(node: Path, place: Place) -> None:
    with demo_reach.Announcements(place.netns("switch"), "underlay") as announcements:
        with demo_netns.entered(node):
            demo_netns.run("ip", "addr", "add", "172.25.0.2/24", "dev", "eth1")
            demo_netns.run("ip", "addr", "add", "fd00:25::2/64", "dev", "eth1", "nodad")
        # Ordinary resolution in both directions: requests, replies and solicited advertisements.
        pairs = [("172.25.0.2", "172.25.0.1"), ("fd00:25::2", "fd00:25::1")]
        assert demo_reach.unreachable({source: node for source, _ in pairs}, pairs) == []
        assert announcements.missing(["172.25.0.2", "fd00:25::2"], timeout_s=0.3) == [
            "172.25.0.2",
            "fd00:25::2",
        ]
        with demo_netns.entered(node), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth1", 0))
            wire.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, psrc="172.25.0.2", pdst="172.25.0.2")))
            advertisement = IPv6(src="fd00:25::2", dst="ff02::1", hlim=255) / ICMPv6ND_NA(
                R=0, S=0, O=1, tgt="fd00:25::2"
            )
            wire.send(bytes(Ether(dst="33:33:00:00:00:01") / advertisement))
        assert announcements.missing(["172.25.0.2", "fd00:25::2"]) == []


def test_an_exec_is_in_the_namespace_and_keeps_streams_apart(node: Path) -> None:
    script = b"cat; ip -o link | grep -c .; echo complaint >&2; exit 3"
    answer = demo_exec.call(Path("/bin/sh"), {"PATH": "/usr/sbin:/usr/bin:/bin"}, script, netns=node)
    assert answer.exit_code == 3
    assert answer.stdout.strip() == b"2"
    assert answer.stderr == b"complaint\n"
    assert answer.duration_ms > 0


def test_what_a_killed_run_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path / "killed", "orbdemokilled-")
    script = (
        "import os, subprocess, signal, pathlib, sys\n"
        "from services.standalone import demo_netns, demo_place, demo_system\n"
        "place = demo_place.Place(pathlib.Path(sys.argv[1]), 'orbdemokilled-')\n"
        "with place.held(lambda: None):\n"
        "    demo_netns.add_named(place.netns('one').name)\n"
        "    (place.root / 'file').write_text('left')\n"
        "    subprocess.Popen(['sleep', '300'], env={demo_system.MARK: str(place.root)})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(place.root)], check=False)
    bystander = subprocess.Popen(["sleep", "300"], env={demo_system.MARK: f"{place.root}-other"})
    try:
        assert demo_system.marked(place.root)
        assert demo_netns.named(place.prefix)
        with place.held(lambda: None) as left:
            assert left == 2
            assert list(place.root.iterdir()) == []
        assert demo_system.marked(place.root) == []
        assert demo_netns.named(place.prefix) == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_two_runs_take_turns(tmp_path: Path) -> None:
    place = Place(tmp_path / "shared", "orbdemoshared-")
    script = (
        "import pathlib, sys, time\n"
        "from services.standalone import demo_place\n"
        "with demo_place.Place(pathlib.Path(sys.argv[1]), 'orbdemoshared-').held(lambda: print('waits', flush=True)):\n"
        "    print('holds', flush=True)\n"
    )
    with place.held(lambda: None):
        other = subprocess.Popen(
            [sys.executable, "-c", script, str(place.root)], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        time.sleep(0.2)
        assert other.poll() is None
    out, _ = other.communicate(timeout=20)
    assert out == "holds\n"
    assert not place.root.exists()


def test_the_machine_is_compared_by_names_that_could_be_ours() -> None:
    before = Machine.look()
    mine, other = Path(f"/var/tmp/orbdemo-file-{os.getpid()}"), Path(f"/var/tmp/else-{os.getpid()}")
    try:
        mine.touch()
        other.touch()
        new = before.new_in(Machine.look())
        assert f"file {mine}" in new
        assert f"file {other}" not in new
    finally:
        mine.unlink()
        other.unlink()
