"""The memory of each part, and the controller's in a cluster of 150,000 pods. Those pods are put into etcd as the API server would store
them, since creating them one by one takes an hour; the API server then lists and watches them as its own.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.cluster.bench.stage import Services, memory_mib
from tests.support.kube import ApiServer
from tests.support.kube_process import Program

PODS = 150_000
NODES = 5_000
_BATCH = 100
"""etcd takes 128 writes a transaction."""
_SETTLE_S = 15.0
"""What is done soon after the start, status above all."""
_LIST_TIMEOUT = "--request-timeout=10m"


def controller_mib(directory: Path, say: Callable[[str], None], pods: int = PODS) -> float:
    """The most that the process ever had, from its start until all pods are facts and quiet has come."""
    server = ApiServer(directory / "server", flags=(_LIST_TIMEOUT,))
    with Services(directory, server) as services:
        began = time.monotonic()
        server.stop_api()
        for first in range(0, pods, _BATCH):
            _put(server, [_stored(number) for number in range(first, min(first + _BATCH, pods))])
        server.start_api()
        say(f"{pods:,} pods are in etcd after {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        services.start()
        say(f"the services are ready after {time.monotonic() - began:.0f} s")
        time.sleep(_SETTLE_S)
        pids = {
            "controller": services.controller.pid,
            "allocator": services.allocator.pid,
            "webhook": services.webhook.pid,
        }
        for name, pid in pids.items():
            say(f"{name}: {memory_mib(pid):.0f} MiB, at most {memory_mib(pid, 'VmHWM'):.0f} MiB")
        return memory_mib(services.controller.pid, "VmHWM")


def say_each(programs: Mapping[str, Program], say: Callable[[str], None]) -> None:
    """The memory of every part of a small cluster's system, after what it has done so far."""
    for name, program in programs.items():
        say(f"{name}: {memory_mib(program.pid):.0f} MiB, at most {memory_mib(program.pid, 'VmHWM'):.0f} MiB")


def _put(server: ApiServer, pods: list[dict[str, Any]]) -> None:
    writes = [
        {
            "requestPut": {
                "key": _base64(
                    f"/registry/pods/{pod['metadata']['namespace']}/{pod['metadata']['name']}".encode()
                ),
                "value": _base64(json.dumps(pod).encode()),
            }
        }
        for pod in pods
    ]
    request = Request(f"{server.etcd_url}/v3/kv/txn", json.dumps({"success": writes}).encode())
    with urlopen(request, timeout=60) as response:
        assert json.load(response)["succeeded"]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _stored(number: int) -> dict[str, Any]:
    """A pod as it is in a busy cluster, with what a controller need not keep: managed fields, environment, volumes, conditions."""
    owner = number // 20
    name = f"web-{owner:05}-{number:06x}"
    node = f"node-{number % NODES}"
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    environment = [{"name": f"VARIABLE_{index}", "value": f"value-{index}"} for index in range(10)]
    template = {"app.kubernetes.io/name": f"web-{owner:05}", "pod-template-hash": f"{owner:010x}"}
    times = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    fields = {
        "f:metadata": {"f:labels": {f"f:label-{index}": {} for index in range(10)}},
        "f:spec": {"f:containers": {}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": f"team-{owner % 100}",
            "uid": f"00000000-0000-4000-8000-{number:012x}",
            "labels": template,
            "annotations": {"kubernetes.io/config.seen": "2026-01-01T00:00:00Z"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"web-{owner:05}",
                    "uid": f"10000000-0000-4000-8000-{owner:012x}",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [
                {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": times["creationTimestamp"], "fieldsType": "FieldsV1", "fieldsV1": fields}
            ],
            **times,
        },
        "spec": {
            "nodeName": node,
            "containers": [{"name": "main", "image": "registry.example.com/team/web:1.2.3", "env": environment, "resources": {}}],
            "restartPolicy": "Always",
            "serviceAccountName": "default",
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": "192.0.2.1",
            "startTime": times["creationTimestamp"],
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": times["creationTimestamp"]}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {"name": "main", "ready": True, "restartCount": 0, "image": "registry.example.com/team/web:1.2.3", "imageID": "", "containerID": f"containerd://{number:064x}"}
            ],
        },
    }  # fmt: skip
