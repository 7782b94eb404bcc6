"""Networks that admission refuses, and those that it takes."""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.networks import REFUSED, TAKEN
from tests.conformance.objects import SHOP, Json, namespace
from tests.conformance.smc import NAME, coordinated, made
from tests.conformance.world import Refused, World


@pytest.mark.parametrize(("network", "text"), REFUSED)
def test_refused(world: World, network: Json, text: str) -> None:
    with pytest.raises(Refused, match=text):
        world.review(network)


@pytest.mark.parametrize(("network", "text"), TAKEN)
def test_taken(world: World, network: Json, text: str) -> None:
    assert world.review(network)["metadata"]["name"] == "made", text


@case("M00024")
@pytest.mark.parametrize("prefix", ["01:10", "9e:1"])
def test_an_update_is_judged_alike(world: World, prefix: str) -> None:
    world.apply(coordinated(podMACPrefix="9e:10"))
    with pytest.raises(Refused, match="podMACPrefix"):
        world.review(coordinated(podMACPrefix=prefix))


@case("M00011")
def test_names_that_clash(world: World) -> None:
    """In one namespace only, and not with itself."""
    world.apply(made(annotations={NAME: "taken"}, name="first"), made(name="plain"), namespace("market"))
    for clash in (
        made(annotations={NAME: "taken"}, name="second"),
        made(annotations={NAME: "plain"}, name="second"),
        made(name="taken"),
        made("ipvlan", name="taken"),
        made("custom", {NAME: "plain"}, name="own"),
    ):
        with pytest.raises(Refused, match="already exists and is managed by SpiderMultusConfig"):
            world.review(clash)
    elsewhere = made(annotations={NAME: "taken"}, name="second")
    elsewhere["metadata"]["namespace"] = "market"
    world.review(elsewhere)
    world.review(made(annotations={NAME: "taken"}, name="first", disableIPAM=True))
    world.review(
        made(annotations={NAME: "plain"}, name="plain-2") | {"metadata": {"name": "first", "namespace": SHOP}}
    )
    world.review(made(name="first-2"))


@case("M00011")
def test_a_name_does_not_change(world: World) -> None:
    world.apply(made(annotations={NAME: "one"}, name="first"), made(name="plain"))
    with pytest.raises(Refused, match="not changeable"):
        world.review(made(annotations={NAME: "two"}, name="first"))
    with pytest.raises(Refused, match="cannot be added"):
        world.review(made(annotations={NAME: "other"}, name="plain"))
    world.review(made(name="first"))
