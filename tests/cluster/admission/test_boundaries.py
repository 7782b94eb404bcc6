"""Every field of every kind at its edges, on a real API server: what is refused tells the field, what is taken is stored."""

from __future__ import annotations

import pytest

from shared.manifests.kinds import BY_KIND
from tests.cluster.admission.boundary_case import ROWS, Json, Row
from tests.cluster.admission.conftest import OURS, Cluster
from tests.support.kube_client import ApiError


def path_of(body: Json) -> str:
    kind = BY_KIND[body["kind"]]
    return f"{OURS}/{'namespaces/default/' if kind.namespaced else ''}{kind.plural}"


def refusal(cluster: Cluster, body: Json) -> str:
    """What the API server says against the object; empty if it takes it."""
    try:
        cluster.client.request("POST", path_of(body), body, query={"dryRun": "All"})
    except ApiError as error:
        assert error.status == 422, error
        return str(error)
    return ""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_field_at_its_edges(cluster: Cluster, row: Row) -> None:
    wrong = [f"taken: {value!r}" for value in row.refused if not refusal(cluster, row.make(value))]
    wrong += [
        f"refused: {value!r:.200}: {said:.300}"
        for value in row.taken
        if (said := refusal(cluster, row.make(value)))
    ]
    assert not wrong


def test_a_subnet_of_a_long_name_has_pools(cluster: Cluster) -> None:
    """Its name is no label value, and the label is Spiderpool's: the owner reference says the same."""
    name = "s" * 253
    subnet: Json = {"subnet": "10.83.0.0/24", "ips": ["10.83.0.10-10.83.0.20"], "gateway": "10.83.0.1"}
    api: Json = {"apiVersion": "spiderpool.spidernet.io/v2beta1"}
    cluster.apply({**api, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": subnet})
    pool: Json = {"subnet": "10.83.0.0/24", "ips": ["10.83.0.10"]}
    cluster.apply({**api, "kind": "SpiderIPPool", "metadata": {"name": "in-long"}, "spec": pool})
    made = cluster.client.get(f"{OURS}/spiderippools/in-long")
    assert made["metadata"]["ownerReferences"][0]["name"] == name
    assert made["spec"]["gateway"] == "10.83.0.1"
    assert "ipam.spidernet.io/owner-spider-subnet" not in made["metadata"]["labels"]
    cluster.client.patch(f"{OURS}/spiderippools/in-long", {"spec": {"gateway": ""}})
    assert not cluster.client.get(f"{OURS}/spiderippools/in-long")["spec"]["gateway"], "inherited once"
