"""tilt/Tiltfile, run in a Starlark interpreter with Tilt's functions recorded: what it names is there, and is what deploy/ says.

Must know of Tilt only its functions' names and arguments (docs.tilt.dev/api, 0.33): one that Tilt does not have is an error here too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import starlark
import yaml

REPOSITORY = Path(__file__).parents[2]
TILT = REPOSITORY / "tilt"
ARGUMENTS = {
    "allow_k8s_contexts": "contexts",
    "default_registry": "host host_from_cluster single_name",
    "docker_build": "ref context build_args dockerfile dockerfile_contents live_update match_in_env_vars ignore only "
    "entrypoint target ssh secret network extra_tag container_args cache_from pull platform extra_hosts",
    "fall_back_on": "paths",
    "k8s_resource": "workload new_name port_forwards extra_pod_selectors trigger_mode resource_deps objects auto_init "
    "pod_readiness links labels discovery_strategy",
    "k8s_yaml": "yaml allow_duplicates",
    "kustomize": "pathToDir kustomize_bin flags",
    "link": "url name",
    "local_resource": "name cmd deps trigger_mode resource_deps ignore auto_init serve_cmd links allow_parallel "
    "readiness_probe labels dir env serve_dir serve_env cmd_bat serve_cmd_bat",
    "port_forward": "local_port container_port name link_path host",
    "run": "cmd trigger echo_off",
    "sync": "local_path remote_path",
    "v1alpha1.cmd": "name labels annotations args dir env readiness_probe restart_on start_on disable_source",
    "v1alpha1.start_on_spec": "ui_buttons",
    "v1alpha1.ui_button": "name labels annotations location text icon_name icon_svg disabled requires_confirmation "
    "show_inputs_as_modal inputs",
    "v1alpha1.ui_component_location": "component_id component_type",
    "v1alpha1.ui_input_spec": "name label text bool hidden choice",
    "v1alpha1.ui_text_input_spec": "default_value placeholder",
    "watch_file": "file_path",
}
"""Positional order, as Tilt has it. Its extensions are not among them: Tilt fetches those from GitHub when the Tiltfile is run."""


class Tilt:
    """Tilt's functions: every call is kept, by name, with its arguments by their names."""

    def __init__(self, *, arguments: dict[str, str] | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.defined: list[str] = []
        self.arguments = arguments or {}

    def of(self, name: str) -> list[dict[str, Any]]:
        return [arguments for called, arguments in self.calls if called == name]

    def record(self, name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        known = ARGUMENTS[name].split()
        unknown = set(named) - set(known)
        assert not unknown and len(positional) <= len(known), f"{name} has no {unknown or len(positional)}"
        arguments = {**dict(zip(known, positional, strict=False)), **named}
        self.calls.append((name, arguments))
        if name == "kustomize":
            done = subprocess.run(
                [*kustomize(), str(TILT / arguments["pathToDir"])], capture_output=True, text=True, check=True
            )
            return done.stdout
        return {"call": name, **arguments}

    def run(self, path: Path = TILT / "Tiltfile", text: str | None = None) -> None:
        starlark.eval(self._module(), _parsed(path, text), _globals(), starlark.FileLoader(self._load))

    def _load(self, name: str) -> starlark.FrozenModule:
        module = self._module()
        starlark.eval(module, _parsed(TILT / name), _globals(), starlark.FileLoader(self._load))
        return module.freeze()

    def _module(self) -> starlark.Module:
        module = starlark.Module()
        members: dict[str, str] = {}
        for name in ARGUMENTS:
            bound = "_" + name.replace(".", "_") if "." in name else name
            module.add_callable(bound, self._recording(name))
            if "." in name:
                members[name.partition(".")[2]] = bound
        module["TRIGGER_MODE_MANUAL"], module["TRIGGER_MODE_AUTO"] = 1, 0
        module.add_callable("_define", lambda name, args=False, usage="": self.defined.append(name))
        module.add_callable("_parse", lambda: self.arguments)
        module.add_callable("decode_yaml_stream", lambda text: _floating(list(yaml.safe_load_all(text))))
        module.add_callable("encode_yaml_stream", lambda objects: yaml.safe_dump_all(_integral(objects)))
        structs = (
            f"config = struct(define_string = _define, parse = _parse, main_dir = {json.dumps(str(TILT))})\n"
            f"v1alpha1 = struct({', '.join(f'{name} = {bound}' for name, bound in members.items())})\n"
        )
        starlark.eval(module, _parsed(Path("built-in"), structs), _globals())
        return module

    def _recording(self, called: str) -> Callable[..., Any]:
        return lambda *positional, **named: self.record(called, positional, named)


def _floating(value: Any) -> Any:
    """As Tilt decodes YAML: every number is a float."""
    match value:
        case dict():
            return {key: _floating(one) for key, one in value.items()}
        case list():
            return [_floating(one) for one in value]
        case int() if not isinstance(value, bool):
            return float(value)
        case _:
            return value


def _integral(value: Any) -> Any:
    """As Tilt encodes it again: by way of JSON, where a whole number has no point."""
    match value:
        case dict():
            return {key: _integral(one) for key, one in value.items()}
        case list():
            return [_integral(one) for one in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _globals() -> starlark.Globals:
    return starlark.Globals.extended_by([starlark.LibraryExtension.StructType])


def _parsed(path: Path, text: str | None = None) -> starlark.AstModule:
    dialect = starlark.Dialect.extended()
    dialect.enable_top_level_stmt = True
    return starlark.parse(str(path), path.read_text() if text is None else text, dialect)


def kustomize() -> list[str]:
    for command in ("kustomize", "kubectl"):
        if found := shutil.which(command):
            return [found, "build" if command == "kustomize" else "kustomize"]
    from tests.cluster import build

    return [str(build.programs() / "kubectl"), "kustomize"]


@pytest.fixture(scope="module")
def tilt() -> Tilt:
    made = Tilt(
        arguments={
            "parent": "eth7",
            "context": "lab",
            "registry": "registry:5000",
            "otlp": "http://otlp:4318",
        }
    )
    made.run()
    return made


@pytest.fixture(scope="module")
def applied(tilt: Tilt) -> list[dict[str, Any]]:
    return [one for call in tilt.of("k8s_yaml") for one in yaml.safe_load_all(call["yaml"]) if one]


def workloads(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds = ("DaemonSet", "Deployment", "StatefulSet")
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in objects if one["kind"] in kinds
    }


def containers(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for spec in workloads(objects).values():
        yield from spec["containers"]


def test_the_image_is_the_one_that_the_manifests_run(tilt: Tilt, applied: list[dict[str, Any]]) -> None:
    (image,) = tilt.of("docker_build")
    assert {container["image"].rpartition(":")[0] for container in containers(applied)} == {image["ref"]}
    containerfile = (TILT / image["dockerfile"]).resolve()
    assert containerfile == REPOSITORY / "deploy" / "images" / "Containerfile"
    context = (TILT / image["context"]).resolve()
    assert context == REPOSITORY
    copied = [
        line.split()[1:-1] for line in containerfile.read_text().splitlines() if line.startswith("COPY ")
    ]
    sources = {one for words in copied for one in words if not any(word.startswith("--") for word in words)}
    assert sources == set(image["only"]) and all((context / one).exists() for one in sources)


def test_sources_go_where_the_image_has_them(tilt: Tilt) -> None:
    (image,) = tilt.of("docker_build")
    steps = image["live_update"]
    assert [step["call"] for step in steps] == ["fall_back_on", "sync", "sync", "run"]
    containerfile = (TILT / image["dockerfile"]).resolve().read_text()
    synced = set()
    for step in steps:
        if step["call"] == "sync":
            local = (TILT / step["local_path"]).resolve()
            assert local.is_dir() and f"COPY {local.name} {step['remote_path']}\n" in containerfile
            synced.add(local.name)
    (images,) = [step["paths"] for step in steps if step["call"] == "fall_back_on"]
    rebuilt = {str((TILT / one).resolve().relative_to(REPOSITORY)) for one in images}
    assert synced | rebuilt == set(image["only"]) and not synced & rebuilt


def test_every_workload_is_a_resource_with_a_label_and_its_ports(
    tilt: Tilt, applied: list[dict[str, Any]]
) -> None:
    specs = workloads(applied)
    resources = {call["workload"]: call for call in tilt.of("k8s_resource")}
    assert set(resources) == set(specs)
    names = {call["new_name"] for call in resources.values()}
    forwarded: list[int] = []
    for workload, call in resources.items():
        assert call["labels"] and set(call["resource_deps"]) <= names
        ports = {
            port["name"]: port["containerPort"]
            for container in specs[workload]["containers"]
            for port in container.get("ports", [])
        }
        for forward in call["port_forwards"]:
            assert forward["container_port"] in ports.values(), (workload, forward)
            forwarded.append(forward["local_port"])
        if "metrics" in ports:
            assert ports["metrics"] in [forward["container_port"] for forward in call["port_forwards"]]
    assert len(forwarded) == len(set(forwarded)) and {5711, 5721, 5722, 5725, 5745} <= set(forwarded)


def test_services_can_be_exchanged_while_they_run(tilt: Tilt, applied: list[dict[str, Any]]) -> None:
    pid_file = pid_file_of(tilt)
    for container in containers(applied):
        assert container["securityContext"]["readOnlyRootFilesystem"] is False
        assert container["command"][:2] == ["sh", "-c"] and f"echo $p > {pid_file}" in container["command"][2]
        subprocess.run(["sh", "-n", "-c", container["command"][2]], check=True)
        # On a volume it would be another container's as well, whose process would be ended for ours.
        mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        assert not any(pid_file.is_relative_to(mount) for mount in mounts), container["name"]


def pid_file_of(tilt: Tilt) -> Path:
    (image,) = tilt.of("docker_build")
    again: str = image["live_update"][-1]["cmd"]
    return Path(again.removeprefix("kill -TERM $(cat ").removesuffix(")"))


def test_a_service_starts_again_with_what_was_synchronised(
    tilt: Tilt, tmp_path: Path, applied: list[dict[str, Any]]
) -> None:
    """The loop of the manifests in a real shell: a TERM of the step ends the service and not the container, one of the runtime both."""
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    command = next(containers(applied))["command"][2].replace(str(pid_file_of(tilt)), str(pid_file))
    script = f"echo began >> {log}; exec sleep 600"
    container = subprocess.Popen(["sh", "-c", command, "again", "sh", "-c", script])
    try:
        first = until(lambda: pid_file.exists() and pid_file.read_text().strip())
        until(lambda: log.exists() and log.read_text().count("began") == 1)
        subprocess.run(["sh", "-c", f"kill -TERM $(cat {pid_file})"], check=True)
        until(lambda: log.read_text().count("began") == 2)
        assert container.poll() is None and pid_file.read_text().strip() != first
        container.terminate()
        assert container.wait(10) == 0
        until(lambda: not Path(f"/proc/{pid_file.read_text().strip()}").exists())
    finally:
        container.kill()


def until(found: Callable[[], Any]) -> Any:
    end_s = time.monotonic() + 20
    while not (value := found()):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return value


def test_the_parent_link_is_the_one_that_was_asked_for(applied: list[dict[str, Any]]) -> None:
    (install,) = [
        one for one in workloads(applied)["orbweaver-agent"]["initContainers"] if one["name"] == "install"
    ]
    assert "--parent=eth7" in install["command"] and "--parent=eth1" not in install["command"]


def test_spans_go_where_it_was_asked_for(applied: list[dict[str, Any]]) -> None:
    told = [
        variable["value"]
        for container in containers(applied)
        for variable in container["env"]
        if variable["name"] == "OTLP_ENDPOINT"
    ]
    assert len(told) >= 5 and set(told) == {"http://otlp:4318"}


def test_arguments_are_passed_on(tilt: Tilt) -> None:
    assert set(tilt.defined) == {"parent", "registry", "context", "otlp"}
    assert tilt.of("allow_k8s_contexts") == [{"contexts": "lab"}]
    assert tilt.of("default_registry") == [{"host": "registry:5000"}]


def test_every_button_has_its_resource_and_its_script(tilt: Tilt) -> None:
    buttons = {button["name"]: button for button in tilt.of("v1alpha1.ui_button")}
    assert {"explain", "simulate"} <= set(buttons)
    (attach,) = tilt.of("local_resource")
    assert attach["name"] == "attach a test pod" and attach["auto_init"] is False
    names = {call["new_name"] for call in tilt.of("k8s_resource")} | {attach["name"]}
    assert set(attach["resource_deps"]) <= names and all((TILT / one).exists() for one in attach["deps"])
    commands = {command["start_on"]["ui_buttons"][0]: command for command in tilt.of("v1alpha1.cmd")}
    assert set(commands) == set(buttons) and len(tilt.of("v1alpha1.cmd")) == len(buttons)
    for argv in [attach["cmd"], *(command["args"] for command in commands.values())]:
        assert argv[0] == "bash" and len(argv) == 2
        subprocess.run(["bash", "-n", str(TILT / argv[1])], check=True)
    for name, button in buttons.items():
        location = button["location"]
        assert location["component_type"] == "Resource" and location["component_id"] in names
        assert button["text"] and commands[name]["dir"] == str(TILT)
        assert commands[name]["annotations"]["tilt.dev/resource"] == location["component_id"]
        script = (TILT / commands[name]["args"][1]).read_text()
        assert all(f"${{{given['name']}:-" in script for given in button["inputs"])


def test_the_webhook_has_a_link_that_its_tls_answers(tilt: Tilt) -> None:
    (links,) = [call["links"] for call in tilt.of("k8s_resource") if call["new_name"] == "webhook"]
    assert [one["url"] for one in links] == ["https://localhost:5722/webhook-health-check"]


def test_the_test_pod_runs_the_image_that_the_nodes_have() -> None:
    """Tilt builds under tags of its own, so a tag that is written down is on no node."""
    script = (TILT / "actions" / "attach").read_text()
    assert "get deployment/orbweaver-tools" in script
    (change,) = [line.partition(" | ")[0] for line in script.splitlines() if line.startswith("sed ")]
    done = subprocess.run(
        ["bash", "-c", f"image=r.io/orbweaver:tilt-1; {change}"],
        cwd=TILT / "actions",
        capture_output=True,
        check=True,
    )
    (container,) = yaml.safe_load(done.stdout)["spec"]["containers"]
    assert container["image"] == "r.io/orbweaver:tilt-1"


def test_paths_that_are_watched_exist(tilt: Tilt) -> None:
    for call in tilt.of("watch_file"):
        assert (TILT / call["file_path"]).exists()


@pytest.mark.parametrize(
    "text",
    [
        "k8s_resources('a')",
        "k8s_resource('a', port_forward = [])",
        "v1alpha1.ui_buttons('a')",
        "load('ext://uibutton', 'cmd_button')",
    ],
)
def test_what_tilt_does_not_have_is_an_error(text: str) -> None:
    with pytest.raises((starlark.StarlarkError, AssertionError, KeyError, FileNotFoundError)):
        Tilt().run(TILT / "bad", text)


def test_the_recorder_keeps_what_is_called() -> None:
    recorded = Tilt()
    recorded.run(TILT / "good", "watch_file('x')")
    assert json.dumps(recorded.calls) == '[["watch_file", {"file_path": "x"}]]'
