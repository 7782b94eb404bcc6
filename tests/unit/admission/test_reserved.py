"""SpiderReservedIP: defaults, and one test for each rule."""

from __future__ import annotations

from shared.admission.rules import mutate
from shared.admission.view import Objects
from tests.unit.admission.objects import conf, create, delete, fields, pool, reserved, said, update


def test_the_version_comes_from_the_first_range_and_ranges_merge() -> None:
    out = mutate(reserved(ips=["fd00::2-fd00::4", "fd00::1"]), Objects())
    assert out["spec"] == {"ipVersion": 6, "ips": ["fd00::1-fd00::4"]}
    assert "finalizers" not in out["metadata"]
    assert mutate(reserved(), Objects())["spec"] == {}


def test_s00001_a_reservation_may_overlap_anything() -> None:
    assert create(
        reserved(ips=["10.6.0.10"]), pool(ips=["10.6.0.10"]), reserved("q", ips=["10.6.0.10"])
    ).valid


def test_no_addresses_need_a_version() -> None:
    verdict = create(reserved(ips=[]))
    assert fields(verdict) == ["spec.ipVersion"]
    assert "'spec.ips' may be empty" in said(verdict)
    assert create(reserved(ips=[], ipVersion=4)).valid


def test_every_bad_range_is_told() -> None:
    verdict = create(reserved(ips=["10.6.0.1", "10.6.0.9-10.6.0.1", "fd00::1", "10.6.0.0/24"]))
    assert fields(verdict) == ["spec.ips[1]", "spec.ips[2]", "spec.ips[3]"]
    assert "invalid IP range format in IPv4 '10.6.0.9-10.6.0.1'" in said(verdict)
    assert fields(create(reserved(ips=["x"]))) == ["spec.ipVersion", "spec.ips[0]"]


def test_a_family_that_is_off() -> None:
    assert "IPv4 is disabled" in said(create(reserved(ips=["10.6.0.1"]), conf("enableIPv4: false")))


def test_updates() -> None:
    before = reserved(ips=["10.6.0.1"])
    assert update(before, reserved(ips=["10.6.0.2"])).valid
    assert "spec.ipVersion" in fields(update(before, reserved(ips=["fd00::1"])))
    before["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    verdict = update(before, reserved(ips=["10.6.0.2"]))
    assert verdict.status == 403
    assert said(verdict) == "cannot update a terminating ReservedIP"


def test_deletion_is_free() -> None:
    assert delete(reserved(), conf("enableValidatingResourcesDeletedWebhook: true")).valid
