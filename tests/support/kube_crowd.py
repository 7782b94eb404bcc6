"""An API server that only lists and watches, over plain HTTP, for how much a reader needs where a real one would not fit: very many
pods of the size that real ones have.

Must not know who reads. What it says of lists and watches is what kube-apiserver 1.34 says: pages, tokens, bookmarks, 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

PODS_PATH = "/api/v1/pods"
ENDPOINTS_PATH = "/apis/spiderpool.spidernet.io/v2beta1/spiderendpoints"
SERVED = (
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/apis/apps/v1/statefulsets",
    *(
        f"/apis/spiderpool.spidernet.io/v2beta1/{plural}"
        for plural in (
            "spiderippools",
            "spidersubnets",
            "spiderreservedips",
            "spidermultusconfigs",
            "spidercoordinators",
        )
    ),
)
_MARK = 98765
_FILLER = {
    "managedFields": [
        {
            "manager": "kubelet",
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {f"f:status-{number}": {"f:conditions": {}, "f:phase": {}} for number in range(40)},
        }
    ]
}


def _pod(number: int) -> dict[str, Any]:
    """About 4 KiB, as pods of a Deployment are."""
    group = number // 10
    name = f"web-{group:05d}-5d6f8c7b9d-{number % 100000:05d}"
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {
        "metadata": {
            "name": name,
            "namespace": f"team-{group % 400}",
            "uid": f"{number:08x}-1111-4222-8333-{number:012x}",
            "resourceVersion": str(1000 + number),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app": f"web-{group}",
                "pod-template-hash": "5d6f8c7b9d",
                "tier": "front",
                "team": "a",
            },
            "annotations": {
                "ipam.spidernet.io/ippool": '{"ipv4":["rack-1"],"ipv6":["rack-1-v6"]}',
                "k8s.v1.cni.cncf.io/networks": "kube-system/underlay-a",
                "k8s.v1.cni.cncf.io/network-status": json.dumps([{"name": "x", "ips": [address]}] * 2),
                "other/note": "x" * 200,
            },
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"web-{group:05d}-5d6f8c7b9d",
                    "uid": f"{group:08x}-0000-4222-8333-000000000000",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            **_FILLER,
        },
        "spec": {
            "nodeName": f"node-{number % 5000}",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": [
                {
                    "name": "c",
                    "image": "registry.example/web:1",
                    "env": [{"name": f"E{i}", "value": "v" * 20} for i in range(10)],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "containerStatuses": [{"name": "c", "ready": True, "state": {"running": {}}}],
        },
    }


def _endpoint(number: int) -> dict[str, Any]:
    pod = _pod(number)
    meta = pod["metadata"]
    address = pod["status"]["podIP"]
    return {
        "metadata": {
            **{key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")},
            "finalizers": ["spiderpool.spidernet.io"],
        },
        "status": {
            "current": {
                "uid": meta["uid"],
                "node": pod["spec"]["nodeName"],
                "ips": [{"interface": "eth0", "ipv4": f"{address}/8", "ipv4Pool": "rack-1", "vlan": 0}],
            },
            "ownerControllerType": "Deployment",
            "ownerControllerName": "web",
        },
    }


def _printer(make: Callable[[int], dict[str, Any]]) -> Callable[[int], bytes]:
    """The JSON of object `number`, by replacing what differs in the text of one: a hundred times as fast as writing each."""
    marked = json.dumps(make(_MARK)).encode()
    parts = {
        f"{_MARK // 10:05d}": lambda number: f"{number // 10:05d}",
        f"{_MARK:08x}": lambda number: f"{number:08x}",
        f"{_MARK:012x}": lambda number: f"{number:012x}",
        f"team-{_MARK // 10 % 400}": lambda number: f"team-{number // 10 % 400}",
        f"-{_MARK % 100000:05d}": lambda number: f"-{number % 100000:05d}",
        f"10.{_MARK >> 16 & 255}.{_MARK >> 8 & 255}.{_MARK & 255}": lambda number: (
            f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        ),
        f"node-{_MARK % 5000}": lambda number: f"node-{number % 5000}",
    }

    def text(number: int) -> bytes:
        out = marked
        for mark, value in parts.items():
            out = out.replace(mark.encode(), value(number).encode())
        return out

    return text


class Crowd:
    """`pods` pods, and as many SpiderEndpoints. `url` is known after `start`."""

    def __init__(self, pods: int) -> None:
        self.pods = pods
        self.url = ""
        self._texts = {PODS_PATH: _printer(_pod), ENDPOINTS_PATH: _printer(_endpoint)}
        self._written: dict[str, Any] = {}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._get)
        app.router.add_route("*", "/{path:.*}", self._write)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = self._runner.addresses[0][:2] and f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        if request.path in self._texts:
            start, limit = (
                int(request.query.get("continue") or 0),
                int(request.query.get("limit") or self.pods),
            )
            end = min(self.pods, start + limit)
            meta = {"resourceVersion": "1000000", "continue": str(end) if end < self.pods else ""}
            items = b",".join(self._texts[request.path](number) for number in range(start, end))
            body = b'{"metadata":' + json.dumps(meta).encode() + b',"items":[' + items + b"]}"
            return web.Response(body=body, content_type="application/json")
        if request.path in self._written:
            return web.json_response(self._written[request.path])
        if request.path in SERVED or "/configmaps" in request.path:
            return web.json_response({"metadata": {"resourceVersion": "1000000"}, "items": []})
        return web.json_response({"kind": "Status", "reason": "NotFound", "code": 404}, status=404)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1000000"}}}
        with contextlib.suppress(ConnectionResetError):
            await response.prepare(request)
            while True:
                await response.write(json.dumps(bookmark).encode() + b"\n")
                await asyncio.sleep(30)
        return response

    async def _write(self, request: web.Request) -> web.Response:
        """Whatever is written is taken and kept, and given back with a version."""
        body = await request.json() if request.can_read_body else {}
        meta = body.setdefault("metadata", {})
        meta |= {"resourceVersion": "1000001", "uid": "written"}
        path = request.path if request.method != "POST" else f"{request.path}/{meta.get('name', '')}"
        self._written[path] = body
        return web.json_response(body)
