#!/usr/bin/python3 -IS
"""What was on the nodes of a cluster that Spiderpool served, as far as its pods need it: stands for `multus` and for the IPAM plugin
`spiderpool`, by the name that it is executed as.

Multus' part: which networks a pod has, by the cluster's own and the pod's annotation, from the NetworkAttachmentDefinitions; each is
delegated to the plugins that are named there, and remembered for the DEL. Spiderpool's part: refuses while its agent is away, and has
host-local give the addresses. Must not know the test. Standard library only: nodes run it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

HOME = Path("/run/spidernet")
"""`spiderpool.sock` is there while the agent runs; `ranges.json` is what this node may give of each pool, as host-local has it."""
DELEGATED = Path("/var/lib/cni/multus")
NETWORKS = "k8s.v1.cni.cncf.io/networks"

Json = dict[str, Any]


def main() -> None:
    verb = os.environ["CNI_COMMAND"]
    configuration: Json = json.load(sys.stdin)
    if verb == "VERSION":
        print(json.dumps({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}))
    elif verb in ("ADD", "DEL"):
        name = Path(sys.argv[0]).name
        print(_multus(verb, configuration) if name == "multus" else _spiderpool(verb, configuration))


def _multus(verb: str, configuration: Json) -> str:
    memory = DELEGATED / os.environ["CNI_CONTAINERID"]
    if verb == "DEL":
        networks = json.loads(memory.read_text()) if memory.exists() else _networks(configuration)
        for number, network in reversed(list(enumerate(networks))):
            _delegate(verb, _interface(number), network)
        memory.unlink(missing_ok=True)
        return ""
    networks = _networks(configuration)
    DELEGATED.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(networks))
    results = [_delegate(verb, _interface(number), network) for number, network in enumerate(networks)]
    return json.dumps(results[0])


def _interface(number: int) -> str:
    return f"net{number}" if number else os.environ["CNI_IFNAME"]


def _networks(configuration: Json) -> list[Json]:
    """The pod's, as its NetworkAttachmentDefinitions have them; none of a pod that is gone."""
    pairs = dict(pair.split("=", 1) for pair in os.environ["CNI_ARGS"].split(";") if "=" in pair)
    namespace, pod = pairs["K8S_POD_NAMESPACE"], pairs["K8S_POD_NAME"]
    own = _ask(configuration, namespace, f"pod/{pod}")
    if own is None:
        return []
    further = own["metadata"].get("annotations", {}).get(NETWORKS, "")
    named = [(configuration["multusNamespace"], configuration["clusterNetwork"])]
    named += [(namespace, one.strip()) for one in further.split(",") if one.strip()]
    found: list[Json] = []
    for place, name in named:
        place, name = name.split("/") if "/" in name else (place, name)
        definition = _ask(configuration, place, f"network-attachment-definitions.k8s.cni.cncf.io/{name}")
        if definition is None:
            _fail(f"network-attachment-definition {place}/{name} is not there")
        found.append(json.loads(definition["spec"]["config"]))
    return found


def _ask(configuration: Json, namespace: str, what: str) -> Json | None:
    command = [configuration["kubectl"], "--kubeconfig", configuration["kubeconfig"], "-n", namespace]
    done = subprocess.run([*command, "get", what, "-o", "json"], capture_output=True, text=True, check=False)
    if done.returncode and "NotFound" not in done.stderr:
        _fail(done.stderr)
    return json.loads(done.stdout) if not done.returncode else None


def _delegate(verb: str, ifname: str, network: Json) -> Json:
    result: Json = {}
    plugins = network["plugins"] if verb == "ADD" else reversed(network["plugins"])
    for plugin in plugins:
        body = {**plugin, "cniVersion": network["cniVersion"], "name": network["name"]}
        if result:
            body["prevResult"] = result
        done = subprocess.run(
            [str(Path(sys.argv[0]).parent / plugin["type"])],
            input=json.dumps(body),
            env={**os.environ, "CNI_IFNAME": ifname, "CNI_COMMAND": verb},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            _fail(f"{plugin['type']} {verb} {ifname}: {done.stdout}{done.stderr}")
        result = json.loads(done.stdout or "{}")
    return result


def _spiderpool(verb: str, configuration: Json) -> str:
    if not (HOME / "spiderpool.sock").exists():
        _fail("unhealthy spiderpool-agent backend")
    ranges = json.loads((HOME / "ranges.json").read_text())
    pools = [
        pool for family in (4, 6) for pool in configuration["ipam"].get(f"default_ipv{family}_ippool", [])
    ]
    routes = [
        {"dst": "::/0" if ":" in ranges[p]["subnet"] else "0.0.0.0/0"}
        for p in pools
        if "gateway" in ranges[p]
    ]
    ipam = {"type": "host-local", "ranges": [[ranges[pool]] for pool in pools], "routes": routes}
    done = subprocess.run(
        [str(Path(sys.argv[0]).parent / "host-local")],
        input=json.dumps({**configuration, "ipam": ipam}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        _fail(done.stdout)
    return done.stdout


def _fail(message: str) -> NoReturn:
    print(json.dumps({"cniVersion": "0.4.0", "code": 999, "msg": message}))
    sys.exit(1)


if __name__ == "__main__":
    main()
