"""SpiderIPPool: defaults, and one test for each rule."""

from __future__ import annotations

import json
import time

import pytest

from shared.admission.rules import admit, asks_leases, mutate, validate
from shared.admission.view import Objects
from tests.unit.admission.objects import conf, create, delete, fields, having, pool, said, subnet, update

LEASES = {"a": {"10.6.0.10": "x/p"}}


class TestDefaults:
    def test_finalizer_version_label_and_switches(self) -> None:
        out = mutate(pool(subnet="172.18.40.0/24", ips=["172.18.40.2"]), Objects())
        assert out["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
        assert out["metadata"]["labels"] == {"ipam.spidernet.io/ippool-cidr": "172-18-40-0-24"}
        assert out["spec"] == {
            "subnet": "172.18.40.0/24",
            "ips": ["172.18.40.2"],
            "ipVersion": 4,
            "default": False,
            "disable": False,
        }

    def test_ipv6_label(self) -> None:
        out = mutate(pool(subnet="fd00:172:18::/64"), Objects())
        assert out["metadata"]["labels"]["ipam.spidernet.io/ippool-cidr"] == "fd00-172-18---64"
        assert out["spec"]["ipVersion"] == 6

    def test_ranges_merge_when_there_is_more_than_one(self) -> None:
        one = mutate(pool(ips=["10.6.0.1-10.6.0.1"]), Objects())
        assert one["spec"]["ips"] == ["10.6.0.1-10.6.0.1"]
        more = pool(
            ips=["10.6.0.9", "10.6.0.1-10.6.0.3", "10.6.0.4", "10.6.0.2"], excludeIPs=["10.6.0.2", "10.6.0.1"]
        )
        out = mutate(more, Objects())
        assert out["spec"]["ips"] == ["10.6.0.1-10.6.0.4", "10.6.0.9"]
        assert out["spec"]["excludeIPs"] == ["10.6.0.1-10.6.0.2"]

    def test_what_cannot_be_merged_stays(self) -> None:
        raw = pool(ips=["10.6.0.9-10.6.0.1", "x"])
        assert mutate(raw, Objects())["spec"]["ips"] == ["10.6.0.9-10.6.0.1", "x"]

    def test_a_terminating_pool_gets_what_it_cannot_be_read_without(self) -> None:
        """A manifest that was exported while its pool went, by somebody who left out what is derived."""
        raw = pool(ips=["10.6.0.9", "10.6.0.2"])
        raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        admitted, found = admit(raw, None, Objects())
        assert found.valid
        assert admitted["metadata"] == raw["metadata"]
        assert admitted["spec"] == {**raw["spec"], "ipVersion": 4, "default": False, "disable": False}

    def test_the_given_object_is_not_changed(self) -> None:
        raw = pool(ips=["10.6.0.2", "10.6.0.1"])
        before = json.dumps(raw)
        mutate(raw, Objects())
        assert json.dumps(raw) == before

    def test_d00008_gateway_and_routes_come_from_the_subnet(self) -> None:
        routes = [{"dst": "10.9.0.0/16", "gw": "10.6.0.2"}]
        view = having(subnet(ips=["10.6.0.10-10.6.0.99"], gateway="10.6.0.1", routes=routes))
        out = mutate(pool(ips=["10.6.0.10"]), view)
        assert out["spec"]["gateway"] == "10.6.0.1"
        assert out["spec"]["routes"] == routes
        assert out["metadata"]["labels"]["ipam.spidernet.io/owner-spider-subnet"] == "s"
        (owner,) = out["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("SpiderSubnet", "s", True)
        assert mutate(out, view) == out

    def test_an_explicit_empty_list_of_routes_stops_inheritance(self) -> None:
        view = having(subnet(ips=["10.6.0.10"], routes=[{"dst": "10.9.0.0/16", "gw": "10.6.0.2"}]))
        out = mutate(pool(routes=[], gateway="10.6.0.3"), view)
        assert out["spec"]["routes"] == []
        assert out["spec"]["gateway"] == "10.6.0.3"

    def test_i00005_a_pool_that_is_adopted_keeps_its_values(self) -> None:
        first = having(subnet(ips=["10.6.0.10"], gateway="10.6.0.1"))
        out = mutate(pool(ips=["10.6.0.10"]), first)
        later = having(subnet(ips=["10.6.0.10"], gateway="10.6.0.2"))
        del out["spec"]["gateway"]
        assert "gateway" not in mutate(out, later)["spec"]

    def test_subnets_that_are_off_own_nothing(self) -> None:
        view = having(conf("enableSpiderSubnet: false"), subnet(gateway="10.6.0.1"))
        out = mutate(pool(), view)
        assert "gateway" not in out["spec"]
        assert "ownerReferences" not in out["metadata"]

    def test_a_pool_without_a_subnet_is_an_orphan_and_allowed(self) -> None:
        assert create(pool(ips=["10.6.0.10"]), subnet(cidr="10.7.0.0/16")).valid


class TestCreate:
    @pytest.mark.parametrize(
        ("cidr", "sentence"),
        [
            ("10.6.0.1/16", "unformatted subnet 10.6.0.1/16, please change it to 10.6.0.0/16"),
            ("FD00::/64", "unformatted subnet FD00::/64, please change it to fd00::/64"),
            ("fd00:0::/64", "please change it to fd00::/64"),
            ("10.6.0.0", "invalid CIDR"),
            ("10.6.0.0/33", "invalid CIDR"),
            ("", "must be given"),
        ],
    )
    def test_the_subnet_is_a_canonical_cidr(self, cidr: str, sentence: str) -> None:
        verdict = create(pool(subnet=cidr))
        assert "spec.subnet" in fields(verdict)
        assert sentence in said(verdict)

    def test_the_version_is_derived_or_asked_for(self) -> None:
        verdict = create(pool(subnet="garbage"))
        assert fields(verdict) == ["spec.ipVersion", "spec.subnet"]
        assert "is not generated correctly, 'spec.subnet' may be invalid" in said(verdict)
        assert verdict.status == 422

    def test_the_version_is_4_or_6_and_fits_the_subnet(self) -> None:
        assert "Unsupported value: 5" in said(create(pool(ipVersion=5)))
        assert "invalid CIDR in IPv6" in said(create(pool(ipVersion=6)))

    def test_a_family_that_is_off(self) -> None:
        verdict = create(pool(subnet="fd00::/64"), conf("enableIPv6: false"))
        assert said(verdict) == "IPv6 is disabled"
        assert verdict.errors[0].code == "Forbidden"
        assert verdict.status == 422

    def test_a_name_that_is_taken(self) -> None:
        verdict = create(pool(ips=["10.6.0.10"]), pool(ips=["10.6.0.20"]))
        assert verdict.status == 409
        assert verdict.errors[0].code == "AlreadyExists"

    @pytest.mark.parametrize("other", ["10.6.0.0/24", "10.0.0.0/8", "0.0.0.0/0"])
    def test_cidrs_may_not_overlap(self, other: str) -> None:
        verdict = create(pool(), pool("b", subnet=other))
        assert fields(verdict) == ["spec.subnet"]
        assert said(verdict) == f"overlap with IPPool b which 'spec.subnet' is {other}"

    def test_every_overlap_is_told(self) -> None:
        verdict = create(pool(), pool("b", subnet="10.6.1.0/24"), pool("c", subnet="10.6.2.0/24"))
        assert len(verdict.errors) == 2

    def test_neighbours_and_other_families_do_not_overlap(self) -> None:
        assert create(pool(), pool("b", subnet="10.7.0.0/16"), pool("c", subnet="::/0")).valid

    def test_ranges_of_one_subnet_may_not_overlap(self) -> None:
        verdict = create(
            pool(ips=["10.6.0.1", "10.6.0.10-10.6.0.20"]), pool("b", ips=["10.6.0.15-10.6.0.30"])
        )
        assert fields(verdict) == ["spec.ips[1]"]
        assert "overlap with IPPool b in IP ranges [10.6.0.15-10.6.0.20]" in said(verdict)
        assert "'spec.ips' and 'spec.excludeIPs'" in said(verdict)

    def test_exclusions_count_on_both_sides(self) -> None:
        other = pool("b", ips=["10.6.0.15-10.6.0.30"], excludeIPs=["10.6.0.15"])
        assert create(pool(ips=["10.6.0.15-10.6.0.20"], excludeIPs=["10.6.0.16-10.6.0.20"]), other).valid

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("10.6.0.9-10.6.0.1", "reversed"),
            ("10.6.0.0/24", "invalid IP range format in IPv4"),
            ("10.6.0.1 - 10.6.0.2", "invalid IP range format"),
            ("10.6.0.1-10.6.0.2-10.6.0.3", "invalid IP range format"),
            ("fd00::1", "is not IPv4"),
            ("10.6.0.1-fd00::1", "is not IPv4"),
            ("10.7.0.1", "not match base subnet"),
            ("10.6.0.1-10.7.0.1", "not match base subnet"),
            ("", "invalid IP range format"),
        ],
    )
    @pytest.mark.parametrize("key", ["ips", "excludeIPs"])
    def test_ranges(self, key: str, text: str, sentence: str) -> None:
        verdict = create(pool(**{key: [text]}))
        assert fields(verdict) == [f"spec.{key}[0]"]
        assert sentence in said(verdict)

    def test_no_addresses_are_legal(self) -> None:
        assert create(pool()).valid
        assert create(pool(ips=[], excludeIPs=["10.6.0.1"])).valid

    @pytest.mark.parametrize(
        ("gateway", "valid"),
        [
            ("10.6.0.1", True),
            ("10.6.0.15", False),
            ("10.6.0.19", True),
            ("10.7.0.1", False),
            ("fd00::1", False),
            ("x", False),
        ],
    )
    def test_d00003_the_gateway(self, gateway: str, valid: bool) -> None:
        verdict = create(pool(ips=["10.6.0.10-10.6.0.20"], excludeIPs=["10.6.0.19"], gateway=gateway))
        assert verdict.valid is valid
        assert fields(verdict) == ([] if valid else ["spec.gateway"])

    @pytest.mark.parametrize(
        ("route", "field", "sentence"),
        [
            ({"dst": "0.0.0.0/0", "gw": "10.6.0.1"}, "dst", "default routes"),
            ({"dst": "10.9.0.0", "gw": "10.6.0.1"}, "dst", "invalid CIDR"),
            ({"dst": "fd00::/64", "gw": "10.6.0.1"}, "dst", "invalid CIDR in IPv4"),
            ({"dst": "10.9.0.0/16", "gw": "10.7.0.1"}, "gw", "not contained"),
            ({"dst": "10.9.0.0/16", "gw": "x"}, "gw", "invalid gateway"),
            ({"dst": "10.8.0.0/16", "gw": "10.6.0.1"}, "dst", "duplicate route"),
        ],
    )
    def test_d00003_routes(self, route: dict[str, str], field: str, sentence: str) -> None:
        verdict = create(pool(routes=[{"dst": "10.8.0.0/16", "gw": "10.6.0.1"}, route]))
        assert fields(verdict) == [f"spec.routes[1].{field}"]
        assert sentence in said(verdict)

    def test_pod_affinity_must_say_something_valid(self) -> None:
        assert "at least one" in said(create(pool(podAffinity={})))
        bad = {"matchExpressions": [{"key": "a", "operator": "Near"}]}
        assert fields(create(pool(podAffinity=bad))) == ["spec.podAffinity.matchExpressions[0].operator"]
        assert create(
            pool(podAffinity={"matchLabels": {"a": "b"}}, namespaceAffinity={}, nodeAffinity={})
        ).valid

    def test_pod_affinity_of_auto_pools(self) -> None:
        raw = pool(
            podAffinity={"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}
        )
        raw["metadata"]["labels"] = {"ipam.spidernet.io/owner-application-name": "web"}
        assert fields(create(raw)) == ["spec.podAffinity.matchExpressions", "spec.podAffinity.matchLabels[a]"]
        raw["spec"]["podAffinity"] = {"matchLabels": {"ipam.spidernet.io/app-name": "web"}}
        assert create(raw).valid

    def test_addresses_stay_inside_the_subnet_that_owns_the_pool(self) -> None:
        owner = subnet(ips=["10.6.0.10-10.6.0.20"], excludeIPs=["10.6.0.15"])
        assert create(pool(ips=["10.6.0.10-10.6.0.14"]), owner).valid
        verdict = create(pool(ips=["10.6.0.14-10.6.0.21"]), owner)
        assert (
            "add some IP ranges [10.6.0.15 10.6.0.21] that are not contained in controller Subnet s"
            in said(verdict)
        )

    def test_i00018_an_auto_pool_has_exactly_what_the_subnet_gave_it(self) -> None:
        owner = subnet(ips=["10.6.0.10-10.6.0.20"])
        owner["status"] = {"controlledIPPools": json.dumps({"a": {"ips": ["10.6.0.10-10.6.0.11"]}})}
        raw = pool(ips=["10.6.0.10-10.6.0.11"])
        raw["metadata"]["labels"] = {"ipam.spidernet.io/owner-application-name": "web"}
        assert create(raw, owner).valid
        edited = {**raw, "spec": {**raw["spec"], "ips": ["10.6.0.10-10.6.0.12"]}}
        verdict = create(edited, owner)
        assert "AutoPool.Spec.IPs" in said(verdict)
        assert "ControlledIPPools" in said(verdict)

    def test_everything_wrong_is_told_at_once(self) -> None:
        raw = pool(
            subnet="10.6.0.1/16",
            ips=["x", "10.6.0.9"],
            gateway="10.6.0.9",
            routes=[{"dst": "0.0.0.0/0", "gw": "1.1.1.1"}],
        )
        assert fields(create(raw)) == [
            "spec.subnet",
            "spec.ips[0]",
            "spec.gateway",
            "spec.routes[0].dst",
            "spec.routes[0].gw",
        ]

    def test_wrong_types_are_told(self) -> None:
        verdict = create(pool(ips="10.6.0.1", default="yes"))
        assert fields(verdict) == ["spec.ips", "spec.default"]
        assert {error.code for error in verdict.errors} == {"TypeInvalid"}


class TestUpdate:
    def test_version_and_subnet_are_not_changeable(self) -> None:
        verdict = update(pool(), pool(subnet="fd00::/64", ipVersion=6))
        assert fields(verdict) == ["spec.ipVersion", "spec.subnet"]
        assert "is not changeable" in said(verdict)
        assert verdict.status == 422

    def test_d00001_an_address_that_another_pool_has(self) -> None:
        verdict = update(
            pool("b", ips=["10.6.0.20"]), pool("b", ips=["10.6.0.10", "10.6.0.20"]), pool(ips=["10.6.0.10"])
        )
        assert "overlap with IPPool a in IP ranges [10.6.0.10]" in said(verdict)

    def test_a_pool_does_not_overlap_itself(self) -> None:
        assert update(pool(ips=["10.6.0.10"]), pool(ips=["10.6.0.10-10.6.0.20"])).valid

    @pytest.mark.parametrize(
        ("spec", "field"),
        [
            ({"ips": ["10.6.0.11-10.6.0.20"]}, "spec.ips"),
            ({"ips": ["10.6.0.10-10.6.0.20"], "excludeIPs": ["10.6.0.10"]}, "spec.excludeIPs"),
        ],
    )
    def test_s00003_an_address_in_use_may_not_leave(self, spec: dict[str, list[str]], field: str) -> None:
        before = pool(ips=["10.6.0.10-10.6.0.20"])
        verdict = update(before, pool(**spec), leases=LEASES)
        assert fields(verdict) == [field]
        assert "remove an IP address 10.6.0.10 that is being used by Pod x/p, total IP addresses" in said(
            verdict
        )
        assert verdict.errors[0].code == "Forbidden"
        assert verdict.status == 422
        assert update(before, pool(**spec), leases={"a": {}}).valid

    def test_the_mirrored_status_counts_where_nobody_knows_the_leases(self) -> None:
        before = pool(ips=["10.6.0.10-10.6.0.20"])
        before["status"] = {"allocatedIPs": json.dumps({"10.6.0.10": {"pod": "x/q", "podUid": "1"}})}
        assert "Pod x/q" in said(update(before, pool(ips=["10.6.0.11"])))
        assert update(before, pool(ips=["10.6.0.11"]), leases={}).valid

    def test_an_update_that_moves_no_range_asks_nobody(self) -> None:
        before, after = pool(ips=["10.6.0.10"]), pool(ips=["10.6.0.10"], disable=True)
        assert update(before, after, leases={"a": {"10.6.0.99": "x/p"}}).valid
        assert not asks_leases("UPDATE", after, before, Objects())
        assert not asks_leases("UPDATE", pool(ips=["10.6.0.10-10.6.0.11"]), before, Objects())
        assert asks_leases("UPDATE", pool(ips=["10.6.0.11"]), before, Objects())
        assert not asks_leases("CREATE", after, None, Objects())
        assert not asks_leases(
            "UPDATE", {"kind": "Pod", "apiVersion": "v1"}, {"kind": "Pod", "apiVersion": "v1"}, Objects()
        )

    def test_a_terminating_pool_only_loses_its_finalizer(self) -> None:
        gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        before, after = pool(ips=["10.6.0.10"]), pool(ips=["10.6.0.11"])
        for raw in (before, after):
            raw["metadata"] |= {**gone, "finalizers": ["spiderpool.spidernet.io"]}
        verdict = update(before, after)
        assert verdict.status == 403
        assert said(verdict) == "cannot update a terminating IPPool"
        after["metadata"]["finalizers"] = []
        assert update(before, after).valid

    def test_d00005_disabling_is_allowed_while_in_use(self) -> None:
        assert update(pool(ips=["10.6.0.10"]), pool(ips=["10.6.0.10"], disable=True), leases=LEASES).valid

    def test_many_addresses_in_use_make_a_short_answer(self) -> None:
        leases = {f"10.6.{i}.{j}": "x/p" for i in range(10) for j in range(200)}
        verdict = update(pool(ips=["10.6.0.0-10.6.9.255"]), pool(ips=[]), leases={"a": leases})
        assert len(verdict.errors) == 17
        assert "and 1984 more" in said(verdict)


class TestDelete:
    def test_deletion_is_free_unless_protected(self) -> None:
        raw = pool(ips=["10.6.0.10"])
        raw["status"] = {"allocatedIPCount": 1}
        assert delete(raw).valid
        protected = conf("enableValidatingResourcesDeletedWebhook: true")
        verdict = delete(raw, protected)
        assert verdict.status == 403
        assert said(verdict) == "cannot delete an IPPool with allocated IPs(1)"
        assert delete(raw, protected, leases={}).valid
        assert not delete(raw, protected, leases={"a": {"10.6.0.10": "x/p", "10.6.0.11": "x/q"}}).valid
        assert asks_leases("DELETE", None, raw, having(protected))
        assert not asks_leases("DELETE", None, raw, Objects())


def test_d00017_huge_ipv6_pools_cost_nothing() -> None:
    wide = [
        "fd12:3456:789a:baba::1-fd12:3456:789a:ffff:ffff:ffff:ffff:ffff",
        "fd12:3456:789a::1-fd12:3456:789a:1::",
    ]
    start = time.perf_counter()
    before = pool(
        subnet="fd12:3456:789a::/48", ips=wide, excludeIPs=["fd12:3456:789a::8", "fd12:3456:789a::5"]
    )
    assert create(
        before,
        subnet(cidr="fd12:3456:789a::/48", ips=["fd12:3456:789a::-fd12:3456:789a:ffff:ffff:ffff:ffff:ffff"]),
    ).valid
    leases = {"a": {"fd12:3456:789a:baba::1": "x/p"}}
    assert not update(before, pool(subnet="fd12:3456:789a::/48", ips=wide[1:]), leases=leases).valid
    assert time.perf_counter() - start < 0.5


def test_d00006_a_thousand_pools_are_judged_quickly() -> None:
    view = Objects()
    start = time.perf_counter()
    for i in range(1000):
        raw = mutate(
            pool(f"p{i}", subnet=f"10.{i // 256}.{i % 256}.0/24", ips=[f"10.{i // 256}.{i % 256}.10"]), view
        )
        assert validate("CREATE", raw, None, view).valid
        view.put(raw)
    assert time.perf_counter() - start < 2.0


def test_pools_that_exclude_each_other_can_be_mended_in_steps() -> None:
    """Two came in at one moment: each may be changed in any way that makes it no worse."""
    one, other = pool("a", ips=["10.6.0.10-10.6.0.20"]), pool("b", ips=["10.6.0.15-10.6.0.30"])
    verdict = update(other, pool("b", ips=["10.6.0.15-10.6.0.30"], disable=True), one)
    assert verdict.valid
    assert [w.message for w in verdict.warnings] == [
        "overlap with IPPool a in IP ranges [10.6.0.15-10.6.0.20], total IP addresses are jointly determined by "
        "'spec.ips' and 'spec.excludeIPs'"
    ]
    fewer = update(other, pool("b", ips=["10.6.0.18-10.6.0.30"]), one)
    assert fewer.valid and "[10.6.0.18-10.6.0.20]" in fewer.warnings[0].message
    assert not update(other, pool("b", ips=["10.6.0.21-10.6.0.30"]), one).warnings
    worse = update(other, pool("b", ips=["10.6.0.14-10.6.0.30"]), one)
    assert not worse.valid and "in IP ranges [10.6.0.14]," in said(worse)


def test_a_change_may_not_bring_pools_to_exclude_each_other() -> None:
    one, other = pool("a", ips=["10.6.0.10-10.6.0.20"]), pool("b", ips=["10.6.0.21-10.6.0.30"])
    assert "overlap with IPPool a in IP ranges [10.6.0.20]" in said(
        update(other, pool("b", ips=["10.6.0.20-10.6.0.30"]), one)
    )


def test_what_is_wrong_already_refuses_no_change_of_something_else() -> None:
    """A reversed range, as Spiderpool lets it in: the pool can be disabled, but not made worse, and what is touched must be right."""
    stored = pool(ips=["10.6.0.9-10.6.0.1"])
    verdict = update(stored, pool(ips=["10.6.0.9-10.6.0.1"], disable=True))
    assert verdict.valid and "its ends are reversed" in verdict.warnings[0].message
    assert not update(stored, pool(ips=["10.6.0.9-10.6.0.2"])).valid
    assert fields(update(stored, pool(ips=["10.6.0.9-10.6.0.1"], gateway="10.7.0.1"))) == ["spec.gateway"]
    assert not update(stored, pool(ips=["10.6.0.1-10.6.0.9"])).warnings


def test_a_family_that_is_off_forbids_changes_of_what_is_stored_too() -> None:
    six = pool(subnet="fd00::/64")
    assert fields(update(six, pool(subnet="fd00::/64", disable=True), conf("enableIPv6: false"))) == [
        "spec.ipVersion"
    ]
