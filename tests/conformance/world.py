"""A system of two nodes, and what users, a scheduler and a container runtime do to it: objects, pods that start and end.

Owns the making of sandboxes. Must not know what a case expects.
Everything goes through the product's own doors: the folder of manifests, the installed CNI executable, the command line.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from services.cli import __main__ as command_line
from services.standalone import demo_exec, demo_netns
from services.standalone.demo_place import Place
from services.standalone.demo_system import System
from services.standalone.state import read_system
from tests.conformance.objects import NODES, Json, native, node
from tests.conformance.review import injected

_WAIT_S = 60.0
_PLUGINS = Path("/usr/lib/cni")
"""Those of containernetworking."""


class NotStarted(Exception):
    """The pod's sandbox was refused: CNI error `code`, with its sentence."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"CNI error {code}: {text}")
        self.code = code
        self.text = text


class Refused(Exception):
    """Admission refused an object."""


@dataclass
class Running:
    """A pod whose sandbox is up."""

    manifest: Json
    container_id: str
    netns: Path
    configurations: dict[str, Json]
    """By interface, in the order of their ADDs."""
    addresses: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Global addresses without prefix lengths, as the kernel of the sandbox has them, by interface."""

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"]["namespace"])

    def all_addresses(self) -> list[str]:
        return [address for found in self.addresses.values() for address in found]

    def routes(self, ifname: str, family: int = 4) -> list[Json]:
        with demo_netns.entered(self.netns):
            return json.loads(demo_netns.run("ip", f"-{family}", "-j", "route", "show", "dev", ifname))

    def mtu_bytes(self, ifname: str) -> int:
        with demo_netns.entered(self.netns):
            return int(json.loads(demo_netns.run("ip", "-j", "link", "show", "dev", ifname))[0]["mtu"])

    def sysctl(self, key: str) -> str:
        with demo_netns.entered(self.netns):
            return demo_netns.run("cat", f"/proc/sys/{key.replace('.', '/')}").strip()


def until(condition: Callable[[], bool], what: str, timeout_s: float = _WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


class World:
    """`with World.up(place) as world:`. Objects of one case are gone with `clear`."""

    def __init__(self, place: Place, system: System, nodes: dict[str, Path]) -> None:
        self._place = place
        self.system = system
        self._nodes = nodes
        self._shims = {name: system.install(name, place.root / "cni" / name) for name in nodes}
        self._files: dict[tuple[str, str, str], Path] = {}
        self._kept: set[str] = set()
        self._lasting: dict[Path, str] = {}
        self.running: list[Running] = []

    @staticmethod
    @contextlib.contextmanager
    def up(place: Place) -> Generator[World]:
        with place.held(lambda: None):
            nodes = {name: place.netns(name) for name in NODES}
            demo_netns.build_switch(
                place.netns("switch").name, [path.name for path in nodes.values()], ["172.20.0.1/16"]
            )
            system = System(place.root, dict(nodes))
            system.start()
            try:
                system.wait_ready(lambda line: None)
                world = World(place, system, nodes)
                for number, name in enumerate(NODES, start=1):
                    world.apply(node(name, f"zone-{number}"))
                world.keep()
                yield world
            except BaseException:
                print(system.log_tail())
                raise
            finally:
                system.stop()

    # Objects

    def apply(self, *objects: Json) -> None:
        """Creates or replaces objects; they are in force on return. Raises Refused with what admission complains of."""
        for manifest in objects:
            _, name, namespace = key = _key(manifest)
            file = self.system.manifests / f"{manifest['kind'].lower()}-{namespace}-{name[:150]}.json"
            file.write_text(json.dumps(manifest))
            self._files[key] = file
        self._sync()

    def remove(self, *objects: Json) -> None:
        for manifest in objects:
            self._files.pop(_key(manifest)).unlink()
        self._sync()

    def review(self, manifest: Json) -> Json:
        """The object as admission would store it, as create or, where it is stored, as update. Raises Refused."""
        file = self.system.temporary / "review.json"
        file.write_text(json.dumps(manifest))
        return json.loads(self._door("validate", "-f", str(file)))["admitted"]

    def collect(self) -> None:
        """Garbage collection now."""
        self._door("gc")

    def injected(self, manifest: Json) -> Json:
        """The pod as it would be stored where its creation goes through the webhook."""
        known = read_system(self.system.state)
        assert known is not None
        return injected(known.webhook_url, known.ca_file, manifest)

    def _sync(self) -> None:
        self._door("sync")

    def _door(self, *words: str) -> str:
        """What one command line prints. In this process: a start of Python for each would be most of the time. Raises Refused."""
        out, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
            code = command_line.run([*words, "--state", str(self.system.state)])
        if code != 0:
            raise Refused(out.getvalue() + complaints.getvalue())
        return out.getvalue()

    def _list(self, *words: str) -> list[Json]:
        return json.loads(self._door("get", *words, "-o", "json"))["items"]

    # Pods

    def start(
        self,
        pod: Json,
        *,
        configuration: Json | None = None,
        configurations: dict[str, Json] | None = None,
        container_id: str | None = None,
    ) -> Running:
        """The pod's object, its sandbox, and its ADD. Raises NotStarted; then the object stays, as a kubelet would try again."""
        self.apply(pod)
        return self.sandbox(
            pod, configuration=configuration, configurations=configurations, container_id=container_id
        )

    def never_starts(self, pod: Json, *, configurations: dict[str, Json] | None = None) -> NotStarted:
        """What a try to start the pod is told, whether or not admission lets the object in."""
        with contextlib.suppress(Refused):
            self.apply(pod)
        try:
            self.sandbox(pod, configurations=configurations)
        except NotStarted as failure:
            return failure
        raise AssertionError("the pod started")

    def sandbox(
        self,
        pod: Json,
        *,
        configuration: Json | None = None,
        configurations: dict[str, Json] | None = None,
        container_id: str | None = None,
    ) -> Running:
        """One try of a kubelet to start a pod whose object is there: one ADD for all its networks, or as by Multus one for each of
        `configurations`."""
        container_id = container_id or secrets.token_hex(32)
        (netns,) = demo_netns.add_pods([f"{self._place.prefix}{container_id[:12]}"])
        wanted = configurations or {"eth0": configuration or native()}
        running = Running(pod, container_id, netns, wanted)
        for ifname in wanted:
            answer = self._call("ADD", running, ifname)
            if not answer.ok:
                error = answer.result()
                for called in reversed(wanted):
                    self._call("DEL", running, called)
                demo_netns.remove(netns)
                raise NotStarted(int(error["code"]), f"{error['msg']} {error.get('details', '')}")
        running.addresses = _addresses(netns)
        self.running.append(running)
        return running

    def repeat(self, running: Running) -> None:
        """The ADDs of a sandbox that is up, once more; then what its kernel has is looked at anew."""
        for ifname in running.configurations:
            answer = self._call("ADD", running, ifname)
            assert answer.ok, answer.complaint()
        running.addresses = _addresses(running.netns)

    def end(self, running: Running, *, with_object: bool = True) -> None:
        """The object deleted, and the DEL that a kubelet then does."""
        if with_object:
            self.remove(running.manifest)
        for ifname in reversed(running.configurations):
            answer = self._call("DEL", running, ifname)
            assert answer.ok, answer.complaint()
        self.running.remove(running)
        demo_netns.remove(running.netns)

    def forget(self, running: Running) -> None:
        """The sandbox ends and nobody calls the plugin."""
        if running in self.running:
            self.running.remove(running)
        demo_netns.remove(running.netns)

    def _call(self, command: str, running: Running, ifname: str) -> demo_exec.Answer:
        """A list of plugins as libcni calls it: each is told what the one before answered, and DEL goes backwards."""
        whole = running.configurations[ifname]
        shim = self._shims[running.manifest["spec"]["nodeName"]]
        if "plugins" not in whole:
            return self._exec(command, running, ifname, shim, whole)
        answer: demo_exec.Answer | None = None
        before: Json = {}
        for plugin in whole["plugins"] if command == "ADD" else reversed(whole["plugins"]):
            own = {"cniVersion": whole["cniVersion"], "name": whole["name"]} | plugin | before
            answer = self._exec(command, running, ifname, _PLUGINS / plugin["type"], own)
            if not answer.ok:
                break
            before = {"prevResult": answer.result()} if command == "ADD" else {}
        assert answer is not None
        return answer

    def _exec(
        self, command: str, running: Running, ifname: str, plugin: Path, configuration: Json
    ) -> demo_exec.Answer:
        metadata = running.manifest["metadata"]
        node = running.manifest["spec"]["nodeName"]
        environment = demo_exec.environment(
            command,
            container_id=running.container_id,
            netns=str(running.netns),
            ifname=ifname,
            cni_path=f"{self._shims[node].parent}:{_PLUGINS}",
            arguments=demo_exec.pod_arguments(
                metadata["namespace"], metadata["name"], metadata["uid"], running.container_id
            ),
        )
        return demo_exec.call(
            plugin, environment, json.dumps(configuration).encode(), netns=self._nodes[node]
        )

    # What the system shows

    def pool(self, name: str) -> Json:
        return json.loads(self._door("get", "spiderippools", name, "-o", "json"))

    def records(self, pool: str) -> dict[str, Json]:
        """`status.allocatedIPs` of a pool by address; `allocatedIPCount` must agree."""
        status = self.pool(pool).get("status", {})
        records: dict[str, Json] = json.loads(status.get("allocatedIPs", "{}"))
        assert bool(records) == ("allocatedIPs" in status), "a pool without records has no such member"
        assert status.get("allocatedIPCount", 0) == len(records), status
        return records

    def endpoints(self, namespace: str) -> dict[str, Json]:
        return {one["metadata"]["name"]: one for one in self._list("spiderendpoints", "-n", namespace)}

    def sane(self, *pools: str) -> None:
        """Every record names a running pod with that UID whose sandbox has the address; every such address is recorded."""
        expected = {
            (f"{one.namespace}/{one.name}", one.manifest["metadata"]["uid"], address)
            for one in self.running
            for address in one.all_addresses()
        }
        seen: list[str] = [address for *_, address in expected]
        assert len(seen) == len(set(seen)), "an address on two pods"

        def recorded() -> set[tuple[str, str, str]]:
            return {
                (record["pod"], record["podUid"], address)
                for pool in pools
                for address, record in self.records(pool).items()
            }

        until(lambda: recorded() == expected, f"records {recorded()} are {expected}")

    def keep(self, namespace: str = "") -> None:
        """What is there now outlives `clear`, as it is now, leases of pods of `namespace` too."""
        self._lasting |= {file: file.read_text() for file in self._files.values()}
        self._files.clear()
        if namespace:
            self._kept.add(namespace)

    def clear(self) -> None:
        """Ends what the case left running and removes its objects; then no lease may be left. Raises AssertionError where one was; it is
        collected, so that the next case begins as this one did."""
        complaints: list[str] = []
        for one in tuple(self.running):
            try:
                self.end(one, with_object=_key(one.manifest) in self._files)
            except (AssertionError, Refused) as error:
                complaints.append(str(error))
                self.forget(one)
        for file in self._files.values():
            if file in self._lasting:
                file.write_text(self._lasting[file])
            else:
                file.unlink(missing_ok=True)
        self._files.clear()
        try:
            self._sync()
            until(lambda: not self._leases(), "no lease is left")
        except (AssertionError, Refused) as error:
            complaints.append(str(error))
            self.collect()
            until(lambda: not self._leases(), "no lease is left, though all were to be collected")
        assert not complaints, "; ".join(complaints)

    def _leases(self) -> list[Json]:
        return [one for one in self._list("leases") if one["podNamespace"] not in self._kept]


def _addresses(netns: Path) -> dict[str, list[str]]:
    with demo_netns.entered(netns):
        links = json.loads(demo_netns.run("ip", "-j", "addr", "show"))
    return {
        link["ifname"]: [one["local"] for one in link["addr_info"] if one["scope"] == "global"]
        for link in links
        if link["ifname"] != "lo"
    }


def _key(manifest: Json) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["name"], metadata.get("namespace", "")
