"""One real node: containerd and a kubelet on a machine of its own (kube_machine.py), with a NIC on the underlay.

Owns the processes and files of the node. Must not know the control plane beyond a kubeconfig, nor which CNI plugin it runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster import build
from tests.support import kube_cgroup, kube_machine
from tests.support.kube_image import PAUSE
from tests.support.kube_process import Program

START_S = 60.0
CONTAINERD = "/run/containerd/containerd.sock"
_STATIC_PODS = "/etc/kubernetes/manifests"
_CONTAINERD_CONFIG = """
version = 2
root = "{directory}/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


class Node:
    """`name` is the Node's, `netns` the path of its network namespace, `address` its own on the management network.

    CNI configuration is in the machine's /etc/cni/net.d, plugins in /opt/cni/bin: `path` says where that is for the test.
    """

    def __init__(self, name: str, directory: Path, *, netns: str, address: str, group: str) -> None:
        self.name = name
        self.directory = directory
        self.netns = netns
        self.address = address
        self._group = group
        directory.mkdir(parents=True)
        # The entrance is opened by its path, not by pid: it exists before the machine does.
        self._machine = Program(
            [
                *("nsenter", f"--net={netns}"),
                *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation=private"),
                *(sys.executable, "-I", kube_machine.__file__, name, str(directory)),
            ],
            directory / "machine.log",
            wrapped=True,
        )
        self._first_pid = 0
        self._programs: list[Program] = []
        self.containerd: Program
        self.kubelet: Program

    def start_machine(self) -> None:
        kube_cgroup.make(self._group)
        self._machine.start()
        _await(f"machine of {self.name}", self._machine, lambda: (self.directory / "ready").exists())
        self._first_pid = self._machine.pid
        plugins = self.path("/opt/cni/bin")
        plugins.mkdir(parents=True, exist_ok=True)
        for plugin in Path("/usr/lib/cni").glob("*"):
            shutil.copy(plugin, plugins)
        self.path("/etc/cni/net.d").mkdir(parents=True, exist_ok=True)

    def start_containerd(self) -> None:
        config = self.directory / "containerd.toml"
        config.write_text(
            _CONTAINERD_CONFIG.format(directory=self.directory, socket=CONTAINERD, pause=PAUSE).lstrip()
        )
        program = build.system_program("containerd", "containerd")
        self.containerd = self.program("containerd", [program, "--config", str(config)])
        self.containerd.start()
        _await(f"containerd of {self.name}", self.containerd, lambda: self.ctr("version").returncode == 0)

    def start_kubelet(self, kubeconfig: Path, pki: Path, settings: Mapping[str, Any] | None = None) -> None:
        """`pki` has ca.crt and this node's certificate and key, named after it. `settings` are of KubeletConfiguration."""
        config = self.directory / "kubelet.json"
        config.write_text(json.dumps({**self._kubelet_configuration(pki), **(settings or {})}))
        argv = [
            str(build.programs() / "kubelet"),
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            "--v=2",
        ]
        self.kubelet = self.program("kubelet", argv)
        self.kubelet.start()

    def load(self, *archives: Path) -> None:
        """Images for this node's pods, unpacked now: the first containers of a large one would all do it at once, against a deadline."""
        for archive in archives:
            done = self.ctr("images", "import", str(archive))
            assert done.returncode == 0, f"{archive} on {self.name}: {done.stderr}"

    def write_cni(self, name: str, configuration: Mapping[str, Any]) -> None:
        """A network configuration; whole or not at all, as containerd looks whenever it likes."""
        folder = self.path("/etc/cni/net.d")
        fresh = folder / f".{name}"
        fresh.write_text(json.dumps(configuration))
        fresh.rename(folder / name)

    def write_static_pod(self, pod: Mapping[str, Any]) -> None:
        """The kubelet runs it, with or without an API server, as `<name>-<node>`; its manifest needs a namespace."""
        folder = self.path(_STATIC_PODS)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{pod['metadata']['name']}.json"
        # A dot hides what is not whole yet.
        fresh = folder / f".{name}"
        fresh.write_text(json.dumps(pod))
        fresh.rename(folder / name)

    def remove_static_pod(self, name: str) -> None:
        (self.path(_STATIC_PODS) / f"{name}.json").unlink()

    def path(self, inside: str) -> Path:
        """A path of the machine, as the test process reaches it."""
        return Path(f"/proc/{self._first_pid}/root{inside}")

    def entrance(self) -> list[str]:
        """What makes the command line behind it run on this machine."""
        return ["nsenter", f"--target={self._first_pid}", "--mount", "--uts", "--pid", "--net", "--"]

    def run(self, *argv: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*self.entrance(), *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stderr.strip()}"
        return done

    def ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = build.system_program("ctr", "containerd")
        return self.run(program, f"--address={CONTAINERD}", "--namespace=k8s.io", *arguments, check=False)

    def kill_sandbox(self, namespace: str, pod: str) -> None:
        """Of a pod that runs here: the kubelet makes it a new one."""
        wanted = {
            "io.cri-containerd.kind": "sandbox",
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.name": pod,
        }
        filters = ",".join(f'labels."{key}"=={text}' for key, text in wanted.items())
        [sandbox] = self.ctr("containers", "list", "--quiet", filters).stdout.split()
        self.ctr("tasks", "kill", "--signal", "KILL", sandbox)

    def program(self, name: str, argv: list[str], environment: Mapping[str, str] | None = None) -> Program:
        """A long-running program of this machine; the machine's end is its end."""
        program = Program(
            [*self.entrance(), *argv], self.directory / f"{name}.log", environment, wrapped=True
        )
        self._programs.append(program)
        return program

    def stop(self) -> None:
        """Ends every process of the machine at once; its mounts go with them."""
        self._machine.stop(kill=True)
        for program in self._programs:
            program.stop(kill=True)
        kube_cgroup.remove(self._group)

    def _kubelet_configuration(self, pki: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / f"{self.name}.crt"),
            "tlsPrivateKeyFile": str(pki / f"{self.name}.key"),
            "address": self.address,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._group}",
            "failCgroupV1": False,
            "failSwapOn": False,
            # No CAP_SYS_RESOURCE in a container or small virtual machine.
            "oomScoreAdj": 0,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "maxPods": 250,
            "resolvConf": "/etc/resolv.conf",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "0%"},
            "imageGCHighThresholdPercent": 100,
            "registryPullQPS": 0,
            "kubeAPIQPS": 50,
            "kubeAPIBurst": 100,
            "staticPodPath": _STATIC_PODS,
            "fileCheckFrequency": "1s",
            "syncFrequency": "10s",
            # Tests end containers on purpose; nobody waits for minutes before they start again.
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
            "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
        }  # fmt: skip


def _await(what: str, program: Program, ready: Any) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        program.assert_running()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} is not there after {START_S:.0f} s:\n{program.tail()}")
        time.sleep(0.05)
