"""Traces, metrics, logs and health of every service. Services import from here."""

from shared.telemetry.clock import boottime_offset_ns, boottime_to_unix_ns, shim_start_ns
from shared.telemetry.context import extract, inject, trace_id_text
from shared.telemetry.telemetry import ActiveSpan, Telemetry

__all__ = [
    "ActiveSpan",
    "Telemetry",
    "boottime_offset_ns",
    "boottime_to_unix_ns",
    "extract",
    "inject",
    "shim_start_ns",
    "trace_id_text",
]
