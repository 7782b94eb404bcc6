"""SpiderMultusConfigs that admission refuses, each with what its refusal names, and those that it takes.

Owns the values. Must not know who judges them: both runs try all.
"""

from __future__ import annotations

import pytest

from tests.conformance.case import case
from tests.conformance.objects import Json
from tests.conformance.smc import BOND, NAME, NETWORK, POOLS, RDMA, VERSION, VF, block, coordinated, made, of

TUNING = '{"type": "tuning"}'
RESOURCE: Json = {"rdmaResourceName": "example.com/rdma"}


def each(mark: str, text: str, *networks: Json) -> list[object]:
    return [
        pytest.param(network, text, marks=case(mark), id=f"{mark}-{number}")
        for number, network in enumerate(networks)
    ]


# fmt: off
REFUSED = [
    *each(
        *("M00005", "customCNI"),
        *(made("custom", customCNI=text) for text in ("{not json", "bridge", '{"type": "x"', "{'type': 'x'}", " ", "{},")),
    ),
    *each("M00013", "unsupported CNI version", *(made(annotations={VERSION: one}) for one in ("9.9.9", "1.1.0", "0.2.0", "0.3", "v0.3.1", "", "1"))),
    *each(
        *("M00015", "only supports|specified"),
        made("macvlan", ipvlan=block()),
        made("macvlan", macvlan=block(), ipvlan=block()),
        made("ipvlan", macvlan=block()),
        made("vlan", macvlan=block()),
        made("sriov", macvlan=block()),
        made("ib-sriov", sriov=VF),
        made("sriov", ibsriov=VF),
        made("ovs", sriov=VF),
        made("ipoib", ovs={"bridge": "br0"}),
        made("macvlan", customCNI=TUNING),
        made("macvlan", macvlan=block(), customCNI=TUNING),
        made("custom", macvlan=block()),
        made("custom", customCNI=TUNING, sriov=VF),
    ),
    *each(
        *("M00016", "vlanID|vlan"),
        *(of(kind, vlanID=value) for kind in ("macvlan", "ipvlan", "vlan", "sriov") for value in (-1, 4095, 70000)),
        *(of("ovs", vlan=value) for value in (-1, 4095)),
    ),
    *each("M00020", "cr-name", *(made(annotations={NAME: one}) for one in ("", "a" * 254, "b." * 127 + "c"))),
    *each(
        *("M00021", "chainCNIJsonData"),
        *(
            made(chainCNIJsonData=texts)
            for texts in (
                ["{not json"],
                [""],
                ["null"],
                ['"tuning"'],
                ['{"mtu": 1}'],
                ['{"type": ""}'],
                ['{"type": 1}'],
                ['{"Type": null, "sysctl": {}}'],
                [f"[{TUNING}]"],
                ["[]"],
                [TUNING, "{}"],
                [f"{TUNING} {TUNING}"],
            )
        ),
        of("sriov") | {"spec": {"cniType": "sriov", "sriov": VF, "chainCNIJsonData": ["[]"]}},
    ),
    *each("M00023", "podRPFilter", *(coordinated(podRPFilter=one) for one in (3, 4, 10))),
    *each(
        *("M00024", "podMACPrefix"),
        *(coordinated(podMACPrefix=one) for one in ("01:10", "0f:10", "FF:ff", "9e", "9e:1", "9e:10:11", "zz:10", "9e1:0", "9e 10")),
    ),
    *each(
        *("M00025", "cr-name"),
        *(made(annotations={NAME: one}) for one in ("Not_DNS", "Upper", "a..b", "-a", "a-", "a/b", "ä", " a", ".")),
    ),
    *each(
        *("M00028", "resource|rdmaResourceName|master"),
        *(of(kind, {RDMA: "g"}, **POOLS) for kind in ("macvlan", "ipvlan", "vlan")),
        made("sriov", {RDMA: "g"}, sriov={"resourceName": ""} | POOLS),
        made("ib-sriov", {RDMA: "g"}, ibsriov=POOLS),
        made("ipoib", {RDMA: "g"}, ipoib=POOLS),
    ),
    *each(
        *("M00029", "ippools"),
        *(of(kind, {RDMA: "g"}, **RESOURCE) for kind in ("macvlan", "ipvlan", "vlan")),
        *(of(kind, {RDMA: "g"}, ippools={"ipv4": [], "ipv6": []}) for kind in ("sriov", "ib-sriov", "ipoib")),
    ),
    *each(
        *("M00030", "does not support resource injection"),
        of("ovs", {RDMA: "g"}, **POOLS),
        of("ovs", {NETWORK: "g"}, **POOLS),
        made("custom", {RDMA: "g"}, customCNI=TUNING),
        made("custom", {NETWORK: "g"}),
    ),
    *each(
        *("M00032", "ippools"),
        of("sriov", {NETWORK: "g"}),
        of("ib-sriov", {NETWORK: "g"}),
        of("ipoib", {NETWORK: "g"}),
        of("macvlan", {NETWORK: "g"}, **RESOURCE),
        of("ipvlan", {NETWORK: "g"}, ippools={}, **RESOURCE),
    ),
    *each("M00033", "mtu", *(of("macvlan", mtu=one) for one in (-1, -1500))),
    *each("M00034", "mtu", *(of("ipvlan", mtu=one) for one in (-1, -9000))),
    *each("M00035", "mtu", *(of("sriov", mtu=one) for one in (-1, -9000))),
    *each("M00038", "vlanMode|Unsupported", of("vlan", vlanMode="other"), of("vlan", vlanMode="Manual", vlanID=1)),
    *each("M00040", "vlanID", *(of("vlan", vlanMode="auto", vlanID=one) for one in (100, 0, 4094))),
]
TAKEN = [
    *each("M00020", "", *(made(annotations={NAME: one}) for one in ("a", "a" * 253, "b." * 126 + "c", "0.1-2"))),
    *each("M00016", "", *(of(kind, vlanID=one) for kind in ("macvlan", "ipvlan", "vlan", "sriov") for one in (0, 1, 4094))),
    *each(
        *("M00021", ""),
        *(made(chainCNIJsonData=texts) for texts in ([TUNING], [], [TUNING, '{"type":"sbr"}'], [f"\n{TUNING}\n"])),
    ),
    *each(
        *("M00022", ""),
        *(coordinated(podRPFilter=one) for one in (-1, -2, 0, 1, 2)),
        coordinated(hostRPFilter=1),
        coordinated(hostRPFilter=0, podRPFilter=0, detectGateway=True, detectIPConflict=False),
        coordinated(),
        made(enableCoordinator=True),
    ),
    *each("M00024", "", *(coordinated(podMACPrefix=one) for one in ("9e:10", "9E:10", "9e-10", "00:00", ""))),
    *each(
        *("M00027", ""),
        *(of(kind, {RDMA: "g"}, **RESOURCE, **POOLS) for kind in ("macvlan", "ipvlan", "vlan")),
        *(of(kind, {RDMA: "g"}, ippools={"ipv6": ["sixes-*"]}) for kind in ("sriov", "ib-sriov", "ipoib")),
    ),
    *each(
        *("M00031", ""),
        *(of(kind, {NETWORK: "g"}, **POOLS) for kind in ("macvlan", "ipvlan", "vlan", "sriov", "ib-sriov", "ipoib")),
        of("macvlan", {NETWORK: "g"}, **RESOURCE, **POOLS),
        of("macvlan", {NETWORK: "g"}),
    ),
    *each("M00034", "", *(of("ipvlan", mtu=one) for one in (0, 1, 1400, 65535))),
    *each("M00035", "", *(of("sriov", mtu=one) for one in (0, 1, 1400, 9000))),
    *each("M00040", "", of("vlan", vlanMode="auto"), of("vlan"), of("vlan", vlanMode="manual", vlanID=4094)),
    *each("M00006", "", of("macvlan", **BOND), made("macvlan", macvlan={"master": ["a", "b"], "vlanID": 9} | BOND)),
]
# fmt: on
