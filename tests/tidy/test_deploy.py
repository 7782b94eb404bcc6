"""deploy/ agrees with the code: every settings file is read, Secrets are those of the identities, ports are those that services know, the
dashboard asks for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from services.bus import settings as bus
from services.bus.key import AUDIENCE
from services.bus.settings import HubSettings, LeafSettings
from services.bus.vault import HUB_SECRET, identity_secret
from services.controller.leaving import ACCOUNT, LEAVE_S, LOOK_S, RIGHTS
from services.webhook.configuration import NAMESPACE
from shared import settings
from shared.contracts import mark
from shared.manifests.kinds import GROUP, KINDS
from shared.manifests.settings import CONFIG_MAP
from shared.subjects import HUB_IDENTITIES

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
TYPES: dict[str, type[msgspec.Struct]] = {
    "hub": HubSettings,
    "leaf": LeafSettings,
    "allocator": settings.AllocatorSettings,
    "controller": settings.ControllerSettings,
    "webhook": settings.WebhookSettings,
    "agent": settings.AgentSettings,
    "rdma": settings.RdmaSettings,
    "tools": settings.ToolsSettings,
}
ENVIRONMENT = {
    "POD_NAME": "orbweaver-nats-0",
    "POD_NAMESPACE": NAMESPACE,
    "HOST_IP": "192.0.2.1",
    "NODE_NAME": "node.example",
    "HUB_SERVERS": "3",
    "OTLP_ENDPOINT": "",
}


def objects() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "base").rglob("*.yaml")):
        if path.parent.name != "settings":
            yield from (one for one in yaml.safe_load_all(path.read_text()) if one)


def workloads() -> dict[str, dict[str, Any]]:
    kinds = ("DaemonSet", "Deployment", "StatefulSet")
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in objects() if one["kind"] in kinds
    }


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", TYPES)
def test_settings_are_read(name: str, tmp_path: Path) -> None:
    """Each as its service reads it, with the files that a cluster would mount."""
    for file, text in (
        ("hub.orbweaver-nats-0", "tls://192.0.2.1:5741"),
        ("ca.crt", "certificate"),
        ("password", "p"),
        ("system-password", "s"),
    ):
        (tmp_path / file).write_text(text)
    for identity in ("agent", "rdma"):
        (tmp_path / f"{identity}.password").write_text("p")
    text = (DEPLOY / "base" / "settings" / f"{name}.yaml").read_text()
    for mounted in ("/etc/orbweaver/bus", "/etc/orbweaver/secret", "/var/lib/orbweaver/leaf"):
        text = text.replace(mounted, str(tmp_path))
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    found: Any = settings.read_settings(path, TYPES[name])
    if name in HUB_IDENTITIES:
        assert found.bus.user == name and found.bus.password == "p"
        assert found.bus.servers == ("tls://192.0.2.1:5741",) and found.bus.tls_ca_file
    if name in ("agent", "rdma"):
        assert found.bus.servers == (f"nats://127.0.0.1:{bus.LEAF_PORT}",)
        assert found.bus.inbox_prefix == f"_INBOX_node.node=2Eexample.{name}"


def test_every_settings_file_is_mounted_and_its_variables_are_set() -> None:
    generated = yaml.safe_load((DEPLOY / "base" / "kustomization.yaml").read_text())["configMapGenerator"]
    assert set(generated[0]["files"]) == {f"settings/{name}.yaml" for name in TYPES}
    known = {literal.partition("=")[0] for literal in generated[1]["literals"]}
    for spec in workloads().values():
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            named = re.findall(r"settings/(\w+)\.yaml", json.dumps(container))
            given = {one["name"] for one in container.get("env", [])}
            given |= known if "envFrom" in container else set()
            for name in named:
                text = (DEPLOY / "base" / "settings" / f"{name}.yaml").read_text()
                assert set(re.findall(r"\$\{(\w+)\}", text)) <= given, (container["name"], name)


def test_the_hub_may_fill_every_secret_and_no_secret_is_in_a_manifest() -> None:
    secrets = {one["metadata"]["name"]: one for one in objects() if one["kind"] == "Secret"}
    wanted = {HUB_SECRET, *(identity_secret(identity) for identity in HUB_IDENTITIES)}
    assert set(secrets) == wanted
    assert not any(set(one) & {"data", "stringData"} for one in secrets.values())
    (role,) = [
        one for one in objects() if one["kind"] == "Role" and one["metadata"]["name"] == "orbweaver-nats"
    ]
    (rule,) = [rule for rule in role["rules"] if rule["resources"] == ["secrets"]]
    assert set(rule["resourceNames"]) == wanted and set(rule["verbs"]) == {"get", "patch"}


def test_no_container_starts_before_the_hub_has_filled_what_it_needs() -> None:
    """A kubelet that mounts a volume without what is in it looks at it again a minute later: a key that is named is waited for."""
    for name, spec in workloads().items():
        if name == "orbweaver-nats":  # it fills them
            continue
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") != bus.BUS_CONFIG_MAP, name
        if "bus" in volumes:
            first, whole = (one["configMap"] for one in volumes["bus"]["projected"]["sources"])
            assert first == {"name": bus.BUS_CONFIG_MAP} | {
                "items": [{"key": bus.AUTHORITY_FILE, "path": bus.AUTHORITY_FILE}]
            }
            assert whole == {"name": bus.BUS_CONFIG_MAP}
        if "secret" in volumes:
            keys = {one["key"] for one in volumes["secret"]["secret"]["items"]}
            settings_file = DEPLOY / "base" / "settings" / f"{name.removeprefix('orbweaver-')}.yaml"
            assert keys == set(re.findall(r"/etc/orbweaver/secret/([\w-]+)", settings_file.read_text())), name


def test_who_needs_nothing_of_the_api_server_has_no_token_for_it() -> None:
    bound = {
        subject["name"]
        for one in objects()
        if one["kind"] in ("RoleBinding", "ClusterRoleBinding")
        for subject in one["subjects"]
    }
    assert bound == {"orbweaver-nats", "orbweaver-controller", "orbweaver-webhook"}
    for name, spec in workloads().items():
        account = spec["serviceAccountName"]
        assert spec["automountServiceAccountToken"] is (account in bound), name
    volumes = {volume["name"]: volume for volume in workloads()["orbweaver-agent"]["volumes"]}
    (source,) = volumes["identity"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == AUDIENCE


def test_everything_is_on_the_host_network_with_ports_of_its_own() -> None:
    taken: dict[int, str] = {}
    for name, spec in workloads().items():
        assert spec["hostNetwork"] is True and spec["dnsPolicy"] == "Default", name
        assert {"operator": "Exists"} in spec["tolerations"], name
        for container in spec["containers"]:
            for port in container.get("ports", []):
                assert taken.setdefault(port["containerPort"], name) == name
    hub = {bus.CLIENT_PORT, bus.CLUSTER_PORT, bus.LEAFNODES_PORT, bus.IDENTITY_PORT, bus.HUB_MONITOR_PORT}
    assert {port for port, name in taken.items() if name == "orbweaver-nats"} == hub
    assert {bus.LEAF_PORT, bus.LEAF_MONITOR_PORT} <= set(taken)


def test_every_service_has_probes_and_resources() -> None:
    for name, spec in workloads().items():
        for container in spec["containers"]:
            assert container["resources"]["requests"] and container["resources"].get("limits"), name
            if name != "orbweaver-tools":
                assert "livenessProbe" in container and "startupProbe" in container, container["name"]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (REPOSITORY / "shared" / "telemetry").joinpath("metrics.py").read_text()
    known = set(re.findall(r'"(orbweaver_[a-z_]+)"', text)) | {"orbweaver_spans_dropped"}
    board = json.loads((DEPLOY / "components" / "grafana-dashboard" / "orbweaver.json").read_text())
    asked = {
        re.sub(r"_(total|bucket|count|sum)$", "", name)
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"orbweaver_[a-z_]+", target["expr"])
    }
    assert len(asked) > 10 and asked <= known, asked - known


def test_the_controller_has_the_rights_of_its_readme_and_no_others() -> None:
    """tests/cluster/controller/test_rights.py proves that they are enough."""
    row = re.compile(r"\| `([^`]*)` \| ([^|]+) \| ([^|]+) \| (cluster|installation|kube-system) \|")
    rows = row.findall((REPOSITORY / "services" / "controller" / "README.md").read_text())
    assert len(rows) > 10
    wanted: dict[str, list[tuple[object, ...]]] = {}
    for group, resources, verbs, place in rows:
        kinds, _, names = resources.strip().partition(" named ")
        split = [tuple(part.strip() for part in text.split(",") if part) for text in (kinds, names, verbs)]
        wanted.setdefault(place, []).append((group, *split))
    found: dict[str, list[tuple[object, ...]]] = {}
    for one in yaml.safe_load_all((DEPLOY / "base" / "controller" / "rbac.yaml").read_text()):
        if one["kind"] not in ("Role", "ClusterRole"):
            continue
        namespace = one["metadata"].get("namespace", "")
        place = {"": "cluster", NAMESPACE: "installation"}.get(namespace, namespace)
        found[place] = [
            (
                rule["apiGroups"][0],
                *(tuple(rule.get(key, ())) for key in ("resources", "resourceNames", "verbs")),
            )
            for rule in one["rules"]
        ]
    assert found == wanted


def test_what_a_deletion_needs_is_granted_apart_and_lasts() -> None:
    """tests/cluster/deploy/test_leaving.py proves that it is enough."""
    role, binding = yaml.safe_load_all((DEPLOY / "base" / "controller" / "uninstall.yaml").read_text())
    assert role["metadata"]["name"] == binding["metadata"]["name"] == binding["roleRef"]["name"] == RIGHTS
    assert [one["name"] for one in binding["subjects"]] == [ACCOUNT]
    ours = {row.plural for row in KINDS if row.ours}
    named, of_kinds = role["rules"][:2]
    assert set(named["resourceNames"]) == {f"{plural}.{GROUP}" for plural in ours}
    assert set(of_kinds["resources"]) == ours and "resourceNames" not in of_kinds
    assert all("resourceNames" in rule for rule in role["rules"] if rule is not of_kinds)
    assert workloads()[ACCOUNT]["terminationGracePeriodSeconds"] > LEAVE_S + LOOK_S


def test_settings_of_spiderpool_stay_in_force_where_its_component_is_taken_in() -> None:
    """The controller may read and lead where its settings say, and that is all that differs from ours."""
    folder = DEPLOY / "components" / "spiderpool-settings"
    ours = yaml.safe_load((DEPLOY / "base" / "settings" / "controller.yaml").read_text())
    theirs = yaml.safe_load((folder / "controller.yaml").read_text())
    assert theirs == ours | {"installation_namespace": "kube-system"}
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    deletion, grant = component["patches"]
    assert yaml.safe_load(deletion["patch"])["metadata"] == {
        "name": CONFIG_MAP,
        "namespace": NAMESPACE,
    }
    roles = {
        one["metadata"]["namespace"]: one["rules"]
        for one in objects()
        if one["kind"] == "Role" and one["metadata"]["name"] == "orbweaver-controller"
    }
    added = yaml.safe_load(grant["patch"])
    assert added[0] == {"op": "add", "path": "/rules/0/resourceNames/-", "value": CONFIG_MAP}
    assert roles["kube-system"][0]["resources"] == ["configmaps"]
    assert added[1] == {**added[0], "value": mark.CONFIG_MAP}
    assert [one["value"] for one in added[2:]] == roles[NAMESPACE][1:]
