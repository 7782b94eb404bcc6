"""What nobody should send, over the real shim and agent: one CNI error object, the right code, a sentence that helps."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.standalone import demo_exec, demo_netns
from services.standalone.demo_exec import Answer
from services.standalone.demo_netns import LabError
from services.standalone.demo_system import System
from services.standalone.process import await_gone, send
from services.standalone.state import read_system
from services.standalone.system import ProcessMark
from tests.runtime.conftest import MACHINE, NODE, PLACE, Runtime, Sandbox, error_of, native, until


def _pod(name: str, sandbox: Sandbox) -> dict[str, str]:
    return demo_exec.pod_arguments("shop", name, f"{name}-uid", sandbox.container_id)


@pytest.mark.parametrize(
    ("configuration", "code"),
    [
        pytest.param(b'{"cniVersion":"1.0.0","name":', 6, id="malformed JSON"),
        pytest.param(b"", 6, id="nothing"),
        pytest.param(b"[]", 6, id="not an object"),
        pytest.param(b"\xff\xfe\x00", 6, id="not text"),
        pytest.param(b" " * (10 * 1024 * 1024), 6, id="10 MB of nothing"),
        pytest.param(json.dumps(native() | {"x": "y" * 10_000_000}).encode(), 6, id="10 MB of JSON"),
        pytest.param(native(cniVersion="9.9.9"), 1, id="unknown version"),
        pytest.param(native(cniVersion="0.2.0"), 1, id="version too old"),
        pytest.param(native(cniVersion="rubbish"), 1, id="version that is none"),
        pytest.param(native(cniVersion=1), (1, 6, 7), id="version that is a number"),
        pytest.param(native(name=None), 7, id="no name"),
        pytest.param(native(master=["nowhere0"]), 104, id="parent that does not exist"),
        pytest.param(native(master=[]), (7, 104), id="no parent"),
        pytest.param(native(mtu="large"), 7, id="MTU that is no number"),
        pytest.param(native(cniType="teleport"), 7, id="kind of link that does not exist"),
        pytest.param(native(ippools={"ipv4": ["no-such-pool"]}), (108, 109), id="pool that does not exist"),
        pytest.param(
            native(network="kube-system/none", cniType=None, master=None, ippools=None),
            112,
            id="network that does not exist",
        ),
    ],
)
def test_configuration(
    node: Runtime, configuration: dict[str, Any] | bytes, code: int | tuple[int, ...]
) -> None:
    sandbox = node.sandbox()
    error = error_of(node.call("ADD", sandbox, configuration))
    assert error["code"] in ((code,) if isinstance(code, int) else code), error
    assert node.links(sandbox) == set()


@pytest.mark.parametrize("variable", ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
def test_missing_variable(node: Runtime, variable: str) -> None:
    error = error_of(node.call("ADD", node.sandbox(), without=(variable,)))
    assert error["code"] == 4
    assert variable in error["msg"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"CNI_COMMAND": "EXPLODE"}, 4, id="command"),
        pytest.param({"CNI_CONTAINERID": "../../etc/passwd"}, 4, id="container ID with slashes"),
        pytest.param({"CNI_CONTAINERID": "a" * 300}, 4, id="container ID too long"),
        pytest.param({"CNI_CONTAINERID": "a b\nc"}, 4, id="container ID with spaces"),
        pytest.param({"CNI_IFNAME": "a/b"}, 4, id="interface with a slash"),
        pytest.param({"CNI_IFNAME": "interface-name-too-long"}, 4, id="interface name too long"),
        pytest.param({"CNI_IFNAME": ".."}, 4, id="interface name of dots"),
        pytest.param({"CNI_NETNS": "/no/such/file"}, 4, id="netns that does not exist"),
        pytest.param({"CNI_NETNS": "/etc/passwd"}, 113, id="netns that is a file"),
        pytest.param({"CNI_NETNS": "/proc/1/ns/mnt"}, 113, id="namespace of another kind"),
        pytest.param({"CNI_NETNS": "/proc/1/ns/net"}, 113, id="netns of the machine"),
        pytest.param({"CNI_ARGS": "garbage"}, 4, id="CNI_ARGS without a value"),
        pytest.param({"CNI_ARGS": "K8S_POD_NAMESPACE=shop"}, 4, id="namespace without pod"),
    ],
)
def test_environment(node: Runtime, changes: dict[str, str], code: int) -> None:
    error = error_of(node.call("ADD", node.sandbox(), changes=changes))
    assert error["code"] == code, error
    assert next(iter(changes)) in error["msg"]


def test_namespace_of_the_node_itself(node: Runtime) -> None:
    assert error_of(node.call("ADD", node.sandbox(), netns=str(PLACE.netns(NODE))))["code"] == 113
    assert demo_netns.links(PLACE.netns(NODE)) == {"lo", "eth1"}


def test_namespace_of_another_node(node: Runtime, system: System) -> None:
    shim = system.install(MACHINE, PLACE.root / "cni" / MACHINE)
    error = error_of(node.call("ADD", node.sandbox(), shim=shim, netns=str(PLACE.netns(NODE))))
    assert (error["code"], "another node's" in error["msg"]) == (113, True)
    assert demo_netns.links(PLACE.netns(NODE)) == {"lo", "eth1"}


def test_pool_exhausted(node: Runtime) -> None:
    tiny = native(ippools={"ipv4": ["tiny"]})
    first, second = node.sandbox(), node.sandbox()
    node.add(first, tiny)
    error = error_of(node.call("ADD", second, tiny))
    assert error["code"] == 101
    assert "tiny" in error["msg"]
    assert node.links(second) == set()
    node.delete(first, tiny)
    # The runtime tries again by itself: a DEL is done when its release is in the node's journal, a moment before the log has it.
    until(lambda: node.call("ADD", second, tiny).ok, "the only address is free again")


def test_annotation_that_names_other_interfaces(node: Runtime) -> None:
    sandbox = node.sandbox()
    error = error_of(node.call("ADD", sandbox, arguments=_pod("elsewhere", sandbox)))
    assert error["code"] == 107
    assert "eth0" in error["msg"]


def test_annotation_garbage(node: Runtime) -> None:
    """Such a Pod is there all the same: who looks is told what is wrong with it, and so is its attach."""
    with pytest.raises(LabError, match=r"garbage\.yaml:4: Pod/shop/garbage .*ippool.* not JSON"):
        node.system.sync()
    sandbox = node.sandbox()
    error = error_of(node.call("ADD", sandbox, arguments=_pod("garbage", sandbox)))
    assert error["code"] == 107
    assert "ipam.spidernet.io/ippool" in error["msg"]
    assert "not JSON" in error["msg"]
    with pytest.raises(LabError, match="not JSON"):
        node.system.cli("explain", "pod", "shop/garbage")


def test_pod_without_manifest(node: Runtime) -> None:
    sandbox = node.sandbox()
    error = error_of(node.call("ADD", sandbox, arguments=_pod("nobody", sandbox)))
    assert error["code"] == 110


def _installed_otherwise(node: Runtime, **changes: Any) -> Path:
    """A copy of the installed shim with another configuration."""
    directory = PLACE.root / "cni" / "otherwise"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shim = Path(shutil.copy2(node.shim, directory))
    configuration = json.loads((node.shim.parent / "orbweaver.json").read_text())
    path = directory / "orbweaver.json"
    path.write_text(json.dumps(configuration | changes))
    path.chmod(0o600)
    return shim


def test_wrong_token(node: Runtime) -> None:
    shim = _installed_otherwise(node, password="wrong")
    assert error_of(node.call("ADD", node.sandbox(), shim=shim))["code"] == 116
    assert error_of(node.call("STATUS", None, native(cniVersion="1.1.0"), shim=shim))["code"] in (50, 116)


def test_no_configuration_beside_the_executable(node: Runtime) -> None:
    shim = _installed_otherwise(node)
    (shim.parent / "orbweaver.json").unlink()
    error = error_of(node.call("ADD", node.sandbox(), shim=shim))
    assert "orbweaver.json" in error["msg"]


def test_nothing_listens(node: Runtime) -> None:
    shim = _installed_otherwise(node, server="127.0.0.1:1", deadlines_s={"ADD": 0.6, "DEL": 0.6})
    answer = node.call("ADD", node.sandbox(), shim=shim)
    assert error_of(answer)["code"] == 11
    assert 500 < answer.duration_ms < 3000
    assert error_of(node.call("STATUS", None, native(cniVersion="1.1.0"), shim=shim))["code"] == 50


@pytest.fixture
def stopped_agent(node: Runtime) -> Iterator[ProcessMark]:
    """The agent killed, and its supervisor kept from starting it again until the test lets it."""
    known = read_system(node.system.state)
    assert known is not None
    assert known.supervisor is not None
    (agent,) = [entry.mark for entry in known.services if entry.service == "agent" and entry.node == NODE]
    assert agent is not None
    send(known.supervisor, signal.SIGSTOP)
    send(agent, signal.SIGKILL)
    # The stopped supervisor does not reap it: a zombie counts as gone.
    await_gone([agent], 5.0)
    yield known.supervisor
    send(known.supervisor, signal.SIGCONT)


def test_agent_not_running(node: Runtime, stopped_agent: ProcessMark) -> None:
    shim = _installed_otherwise(node, deadlines_s={"ADD": 1.0})
    sandbox = node.sandbox()
    assert error_of(node.call("ADD", sandbox, shim=shim))["code"] == 11
    assert error_of(node.call("STATUS", None, native(cniVersion="1.1.0"), shim=shim))["code"] == 50
    answers: list[Answer] = []
    waiting = threading.Thread(target=lambda: answers.append(node.call("ADD", sandbox)))
    waiting.start()
    send(stopped_agent, signal.SIGCONT)
    waiting.join(30.0)
    assert answers
    assert answers[0].ok, answers[0].complaint()
