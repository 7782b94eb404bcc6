"""The figures that the project promises: what each must reach, what it aims at, and how a run is judged.

Owns the numbers. Must not know how they are measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from rich.table import Table


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`at_least`: the figure must not be below `must`, else not above it. Where `must` is None the figure is only shown. `large`: it
    takes long to set up, so the short form leaves it out."""

    key: str
    what: str
    must: float | None = None
    aim: float | None = None
    at_least: bool = False
    large: bool = False

    def reaches(self, value: float, bound: float | None) -> bool:
        if bound is None:
            return True
        return value >= bound if self.at_least else value <= bound


FIGURES = (
    Figure(key="add_ratio", what="ADD p50 against macvlan + host-local, IPv4", must=1.6, aim=1.0),
    Figure(key="add_dual_ratio", what="the same, dual-stack", must=0.02, aim=0.01),
    Figure(key="add_p50_ms", what="ADD p50, dual-stack, exec to exit"),
    Figure(key="add_p99_over_p50", what="ADD p99 over p50", must=4.0, aim=2.0),
    Figure(
        key="adds_per_s_16", what="whole ADDs a second, 16 at a time", must=60.0, aim=150.0, at_least=True
    ),
    Figure(key="kernel_p50_ms", what="kernel part of an ADD, dual-stack", must=3.0, aim=1.2),
    Figure(key="allocate_p50_ms", what="allocate request-reply, durable", must=3.0, aim=1.0),
    Figure(
        key="allocs_per_s",
        what="durable allocations a second, 64 in flight",
        must=3000.0,
        aim=15000.0,
        at_least=True,
    ),
    Figure(key="agent_rss_mib", what="agent's memory, idle", must=90.0, aim=60.0),
    Figure(key="agent_rss_after_1000_mib", what="agent's memory after 1,000 attaches and detaches"),
    Figure(key="del_ratio", what="DEL p50 against macvlan + host-local, IPv4"),
    Figure(key="del_p50_ms", what="DEL p50, dual-stack, exec to exit"),
    Figure(key="eight_nic_ratio", what="ADD p50 of 8 interfaces against 1, native", must=2.5, aim=1.5),
    Figure(key="adds_1000_s", what="1,000 dual-stack attaches, 32 at a time", must=17.0, aim=8.0, large=True),
    Figure(
        key="leases_1m_gib",
        what="allocator's memory, 1,000,000 leases in 200 pools",
        must=1.5,
        aim=0.75,
        large=True,
    ),
    Figure(
        key="replay_s", what="its start from a snapshot and 100,000 records", must=20.0, aim=10.0, large=True
    ),
    Figure(key="big_pool_ratio", what="allocation in a /8 and a /48 against a /24", must=1.5, aim=1.0),
    Figure(key="failover_s", what="leading allocator killed, to the next answer", must=2.0, aim=1.0),
    Figure(
        key="allocs_per_s_r3",
        what="as allocs_per_s, on three servers",
        must=2000.0,
        aim=9000.0,
        at_least=True,
    ),
    Figure(
        key="agents_5000_p99_ms",
        what="allocate p99, 5,000 agents, 100 attaches a second",
        must=100.0,
        aim=50.0,
    ),
    Figure(
        key="rebuild_s",
        what="store lost, 100,000 leases on 100 nodes, to a new address",
        must=30.0,
        aim=10.0,
        large=True,
    ),
)
_BY_KEY = {figure.key: figure for figure in FIGURES}
RSS_GROWTH_MUST_MIB = 10.0


def bounds(values: Mapping[str, float]) -> dict[str, Figure]:
    """Those of FIGURES that were measured, by key, with the bound that depends on another figure filled in."""
    grown = {
        "must": values["agent_rss_mib"] + RSS_GROWTH_MUST_MIB,
        "aim": values["agent_rss_mib"] + RSS_GROWTH_MUST_MIB,
    }
    return {
        figure.key: msgspec.structs.replace(figure, **grown)
        if figure.key == "agent_rss_after_1000_mib"
        else figure
        for figure in FIGURES
        if figure.key in values
    }


def reached(key: str, value: float) -> bool:
    """Whether one figure, by itself, reaches its must."""
    return _BY_KEY[key].reaches(value, _BY_KEY[key].must)


def missed(values: Mapping[str, float]) -> list[str]:
    """The keys whose value misses its must."""
    return [key for key, figure in bounds(values).items() if not figure.reaches(values[key], figure.must)]


def table(values: Mapping[str, float], figures: Mapping[str, Figure] | None = None) -> Table:
    """Of the values and what they had to reach, which is `bounds` unless another benchmark brings its own `figures`."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("figure")
    out.add_column("what")
    for column in ("measured", "must", "aim"):
        out.add_column(column, justify="right")
    out.add_column("")
    for key, figure in (bounds(values) if figures is None else figures).items():
        value = values[key]
        sign = "≥" if figure.at_least else "≤"
        mark = "[red]✗ missed[/]"
        if figure.reaches(value, figure.must):
            mark = (
                "[green]✓ aim[/]"
                if figure.reaches(value, figure.aim) and figure.aim is not None
                else "[green]✓[/]"
            )
        if figure.must is None:
            mark = ""
        out.add_row(
            key,
            figure.what,
            f"{value:,.3f}" if value < 10 else f"{value:,.1f}",
            "" if figure.must is None else f"{sign} {figure.must:,.6g}",
            "" if figure.aim is None else f"{sign} {figure.aim:,.6g}",
            mark,
        )
    return out
