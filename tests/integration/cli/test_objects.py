"""The folder through the command: objects come, change, go, and are refused, without a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.cli.stage import Stage

EXTRA = """\
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata: {name: extra}
spec:
  subnet: 172.29.0.0/24
  ips:
  - 172.29.0.10-172.29.0.19
"""


@pytest.fixture
def file(stage: Stage) -> Iterator[Path]:
    """A file of the folder that is not there yet; gone after the test."""
    path = stage.manifests / "extra.yaml"
    yield path
    path.unlink(missing_ok=True)
    assert stage.cli("sync").returncode == 0


def test_an_object_comes_changes_and_goes_with_its_file(stage: Stage, file: Path) -> None:
    assert stage.cli("get", "sp", "extra").returncode == 1
    file.write_text(EXTRA)
    assert stage.done("sync").endswith(" objects in force\n")
    pool = stage.json("get", "SpiderIPPool", "extra")
    assert pool["kind"] == "SpiderIPPool"
    assert pool["spec"]["ipVersion"] == 4
    assert pool["metadata"]["uid"]
    assert pool["status"] == {"allocatedIPCount": 0, "totalIPCount": 10}
    file.write_text(EXTRA.replace("0.19", "0.29"))
    stage.done("sync")
    assert stage.json("get", "spiderippools", "extra")["status"]["totalIPCount"] == 20
    file.unlink()
    stage.done("sync")
    gone = stage.cli("get", "sp", "extra")
    assert (gone.returncode, gone.stdout, gone.stderr) == (1, "", "there is no sp extra\n")


def test_a_bad_file_is_named_by_line_and_field_and_its_last_good_objects_stay(
    stage: Stage, file: Path
) -> None:
    file.write_text(EXTRA)
    stage.done("sync")
    file.write_text(EXTRA.replace("172.29.0.10-172.29.0.19", "172.29.0.19-172.29.0.10"))
    refused = stage.cli("sync")
    assert refused.returncode == 1
    assert "extra.yaml:7: SpiderIPPool/extra spec.ips[0]" in refused.stderr
    assert stage.json("get", "sp", "extra")["spec"]["ips"] == ["172.29.0.10-172.29.0.19"]
    examined = stage.cli("doctor", "-o", "json")
    assert examined.returncode == 1
    failed = [f for f in json.loads(examined.stdout)["findings"] if f["result"] == "fail"]
    assert [f["check"] for f in failed] == ["files"]
    assert "extra.yaml:7" in failed[0]["sentence"]


def test_lists_in_every_form(stage: Stage) -> None:
    names = [item["metadata"]["name"] for item in stage.items("sp")]
    assert names == ["v4", "v6"]
    assert yaml.safe_load(stage.done("get", "sp", "-o", "yaml"))["kind"] == "List"
    assert stage.done("get", "sp", "-o", "name") == (
        "spiderippool.spiderpool.spidernet.io/v4\nspiderippool.spiderpool.spidernet.io/v6\n"
    )
    header, first, _ = stage.done("get", "sp").splitlines()
    assert header.split() == [
        "NAME",
        "VERSION",
        "SUBNET",
        "ALLOCATED-IP-COUNT",
        "TOTAL-IP-COUNT",
        "DEFAULT",
        "AGE",
    ]
    cells = first.split()
    assert (*cells[:3], *cells[4:6]) == ("v4", "4", "172.28.0.0/24", "9", "true")
    assert [item["metadata"]["name"] for item in stage.items("pods", "-n", "prod")] == ["web-1", "web-2"]
    assert stage.items("po", "-n", "nowhere") == []
    assert [item["metadata"]["name"] for item in stage.items("po", "-A")] == ["web-1", "web-2"]
    assert stage.json("get", "ns", "prod")["kind"] == "Namespace"


def test_a_kind_that_nobody_knows_is_stored_and_shown(stage: Stage, file: Path) -> None:
    assert stage.cli("get", "gadgets").returncode == 1
    file.write_text(
        "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: g, namespace: prod}\nspec: {x: [1, {a: z}]}\n"
    )
    stage.done("sync")
    assert stage.json("get", "gadgets", "g")["spec"] == {"x": [1, {"a": "z"}]}


def test_an_endpoint_that_stands_in_the_folder_is_shown(stage: Stage, file: Path) -> None:
    file.write_text(
        "apiVersion: spiderpool.spidernet.io/v2beta1\nkind: SpiderEndpoint\nmetadata: {name: old, namespace: prod}\n"
        "status: {current: {uid: u, node: n1, ips: []}, ownerControllerType: Pod, ownerControllerName: old}\n"
    )
    stage.done("sync")
    assert stage.json("get", "se", "old", "-n", "prod")["status"]["current"]["uid"] == "u"
    assert (
        stage.done("get", "se").splitlines()[-1].split()[:2] == ["prod", "old"] or len(stage.items("se")) > 1
    )


def judged(stage: Stage, text: str) -> tuple[int, dict[str, object]]:
    done = stage.cli("validate", "-f", "-", stdin=text)
    return done.returncode, json.loads(done.stdout)


def test_validate_judges_against_what_is_in_force(stage: Stage) -> None:
    code, verdict = judged(stage, EXTRA)
    assert (code, verdict["valid"], verdict["errors"], verdict["operation"]) == (0, True, [], "CREATE")
    code, verdict = judged(stage, EXTRA.replace("172.29.0.", "172.28.0."))
    assert code == 1
    assert "v4" in json.dumps(verdict["errors"])
    moved = "\n".join(stage.done("get", "sp", "v4", "-o", "yaml").splitlines()).replace(
        "172.28.0.0/24", "172.28.0.0/25"
    )
    code, verdict = judged(stage, moved)
    assert (code, verdict["operation"]) == (1, "UPDATE")
    assert "spec.subnet" in {error["field"] for error in verdict["errors"]}  # type: ignore[index,attr-defined]
    assert stage.cli("validate", "--delete", "SpiderIPPool/v4").returncode == 0
    assert stage.cli("validate", "--delete", "SpiderIPPool/none").returncode == 1


def test_a_webhooks_verdict_is_there_when_sync_returns(stage: Stage, file: Path) -> None:
    file.write_text(EXTRA)
    stage.done("sync")
    services = stage.json("status")["services"]
    known = {
        s["instance"]: int(s["facts"]["facts_sequence"])
        for s in services
        if s["service"] in ("webhook", "controller")
    }
    assert known["webhook-0"] >= known["controller-0"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["leases", "--pool", "zzz"], "there is no SpiderIPPool zzz"),
        (["leases", "--pod", "nope/x"], "there is no Pod nope/x"),
        (["leases", "--node", "n9"], "the system has no node 'n9'"),
        (["attachments", "--pod", "nope/x"], "there is no Pod nope/x"),
        (["attachments", "nobody"], "there is no attachments nobody"),
        (["events", "--node", "n9"], "the system has no node 'n9'"),
        (["sp", "v4", "zzz"], "there is no sp zzz"),
        (["sp/zzz"], "there is no sp zzz"),
    ],
)
def test_what_does_not_exist_is_said(stage: Stage, words: list[str], complaint: str) -> None:
    done = stage.cli("get", *words)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_several_kinds_and_names(stage: Stage) -> None:
    assert [one["metadata"]["name"] for one in stage.items("sp", "v6", "v4")] == ["v6", "v4"]
    assert {one["kind"] for one in stage.items("pods,sp")} == {"Pod", "SpiderIPPool"}
    assert stage.json("get", "sp/v4")["metadata"]["name"] == "v4"
    assert [one["kind"] for one in stage.items("sp/v4", "pods/web-1")] == ["SpiderIPPool", "Pod"]
    shown = stage.done("get", "pods,sp")
    assert "pod/web-1" in shown and "spiderippool.spiderpool.spidernet.io/v4" in shown
    assert stage.cli("get", "sp", "v4", "zzz", "-o", "name").stdout.endswith("/v4\n")


def test_a_setting_without_effect_is_a_warning_of_sync(stage: Stage, file: Path) -> None:
    file.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: spiderpool-conf, namespace: kube-system}\n"
        "data:\n  conf.yml: |\n    enableIPv6: true\n    enableGatewayDetection: true\n"
    )
    done = stage.cli("sync")
    assert done.returncode == 0
    assert "warning: extra.yaml:7: ConfigMap/kube-system/spiderpool-conf" in done.stderr
    assert json.loads(stage.cli("sync", "-o", "json").stdout)["warnings"]
