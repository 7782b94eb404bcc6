"""One CNI call as it came over the bus: headers and body in, a valid Call out, or one error that names all that is wrong.

Owns the table of variables: which verb needs which, and what it may hold (CNI spec 1.1, "Parameters" and "Error").
Pure. Must not know what the network configuration says, nor who answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, cast
from urllib.parse import unquote

import msgspec

from shared import limits
from shared.errors import OrbweaverError
from shared.ids import AttachmentId

Verb = Literal["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]
DEADLINES_S: Mapping[Verb, float] = {
    "ADD": limits.ADD_DEADLINE_S,
    "DEL": limits.DEL_DEADLINE_S,
    "CHECK": limits.CHECK_DEADLINE_S,
    "GC": limits.GC_DEADLINE_S,
    "STATUS": limits.STATUS_DEADLINE_S,
    "VERSION": limits.STATUS_DEADLINE_S,
}
_VERBS: Mapping[str, Verb] = {verb: verb for verb in DEADLINES_S}
_DEADLINE_MAX_S = 600.0
_SECOND_NS = 1_000_000_000
_WIRE_VERSION = "1"
_NUMBER = re.compile(r"[0-9]{1,19}")
_ATTEMPT = re.compile(r"[0-9a-f]{32}")
_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_CALLERS_OWN = ("/proc/self/", "/proc/thread-self/")


class ForeignMessageError(OrbweaverError):
    """Not a request of our shim; it is answered all the same, because somebody waits for it."""

    def __init__(self, found: str) -> None:
        super().__init__("invalid", f"the request is not one of this version's CNI shim: {found}")


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """Who the runtime says it is for; all empty for a container without Kubernetes."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A valid call. Times are nanoseconds of CLOCK_BOOTTIME. `name` is what the plugin was executed as."""

    verb: Verb
    name: str
    attempt: str
    start_ns: int
    deadline_ns: int
    body: bytes
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    pod: Pod = Pod()

    @property
    def attachment(self) -> AttachmentId:
        return AttachmentId(self.container_id, self.ifname)


def _container_id(value: str) -> str:
    if len(value) > limits.CONTAINER_ID_MAX_BYTES:
        return f"is longer than {limits.CONTAINER_ID_MAX_BYTES} characters"
    return (
        ""
        if _CONTAINER_ID.fullmatch(value)
        else "must be letters, digits, '_', '.', '-', a letter or digit first"
    )


def _ifname(value: str) -> str:
    """As the kernel has it (net/core/dev.c, dev_valid_name)."""
    if len(value.encode()) > limits.IFNAME_MAX_BYTES:
        return f"is longer than {limits.IFNAME_MAX_BYTES} bytes"
    wrong = value in (".", "..") or any(c in "/:" or c.isspace() or not c.isprintable() for c in value)
    return "is no name that a link can have" if wrong else ""


def _netns(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        return "must be an absolute path"
    return "means another namespace in each process" if value.startswith(_CALLERS_OWN) else ""


def _arguments(value: str) -> str:
    wrong = [pair for pair in value.split(";") if pair and not pair.partition("=")[1]]
    if wrong:
        return f"must be KEY=VALUE pairs joined by ';', but {wrong[0]!r} is none"
    pairs = _pairs(value)
    if pairs.get("K8S_POD_NAMESPACE") and not pairs.get("K8S_POD_NAME"):
        # Served, it would be a container that no pod's leases, quota or rules count for.
        return "names a pod's namespace, but not the pod: K8S_POD_NAME is missing"
    return ""


def _pairs(arguments: str) -> dict[str, str]:
    return dict(cast("tuple[str, str]", pair.split("=", 1)) for pair in arguments.split(";") if "=" in pair)


class _Variable(msgspec.Struct, frozen=True):
    """`required` and `checked` are verbs. A DEL is checked for nothing that it can do without."""

    required: tuple[Verb, ...]
    checked: tuple[Verb, ...]
    problem: Callable[[str], str]


_VARIABLES: Mapping[str, _Variable] = {
    "CNI_CONTAINERID": _Variable(("ADD", "DEL", "CHECK"), ("ADD", "DEL", "CHECK"), _container_id),
    "CNI_NETNS": _Variable(("ADD", "CHECK"), ("ADD", "CHECK"), _netns),
    "CNI_IFNAME": _Variable(("ADD", "DEL", "CHECK"), ("ADD", "DEL", "CHECK"), _ifname),
    "CNI_ARGS": _Variable((), ("ADD",), _arguments),
}


def decode(headers: Mapping[str, str], body: bytes, now_ns: int) -> Call:
    """The call. Raises OrbweaverError: `environment_invalid` with every variable that is wrong, `content_undecodable`
    for a body above the limit, ForeignMessageError for headers that are not our shim's.

    A start or deadline that cannot be true counts as absent.
    """
    if headers.get("Orb-Version") != _WIRE_VERSION:
        raise ForeignMessageError(f"header Orb-Version is {headers.get('Orb-Version')!r}")
    attempt = headers.get("Orb-Attempt", "")
    if not _ATTEMPT.fullmatch(attempt):
        raise ForeignMessageError(f"header Orb-Attempt is {attempt!r}")
    problems: list[str] = []
    values = {name: _value(headers, name, problems) for name in ("CNI_COMMAND", *_VARIABLES)}
    command = values["CNI_COMMAND"]
    verb = _VERBS.get(command)
    if verb is None:
        problems.append("CNI_COMMAND " + (f"is {_shown(command)}" if command else "is not set"))
        raise OrbweaverError("environment_invalid", "; ".join(dict.fromkeys(problems)))
    for name, variable in _VARIABLES.items():
        value = values[name]
        if value and verb in variable.checked:
            problem = variable.problem(value)
            if problem:
                problems.append(f"{name} {_shown(value)} {problem}")
        elif not value and verb in variable.required:
            problems.append(f"{name} is not set, {verb} needs it")
    if problems:
        raise OrbweaverError("environment_invalid", "; ".join(dict.fromkeys(problems)))
    if len(body) > limits.CNI_BODY_MAX_BYTES:
        raise OrbweaverError(
            "content_undecodable",
            f"the network configuration is larger than {limits.CNI_BODY_MAX_BYTES} bytes",
        )
    start_ns = _number(headers, "Orb-Start-Ns")
    deadline_ns = _number(headers, "Orb-Deadline-Ns")
    if not 0 < start_ns <= now_ns:
        start_ns = now_ns
    if (
        not now_ns - int(_DEADLINE_MAX_S * _SECOND_NS)
        < deadline_ns
        <= now_ns + int(_DEADLINE_MAX_S * _SECOND_NS)
    ):
        deadline_ns = now_ns + int(DEADLINES_S[verb] * _SECOND_NS)
    return Call(
        verb=verb,
        name=_value(headers, "Orb-Name", []),
        attempt=attempt,
        start_ns=start_ns,
        deadline_ns=deadline_ns,
        body=body,
        container_id=values["CNI_CONTAINERID"],
        ifname=values["CNI_IFNAME"],
        netns=values["CNI_NETNS"],
        pod=_pod(values["CNI_ARGS"]),
    )


def _header(variable: str) -> str:
    prefix, _, rest = variable.partition("_")
    return f"{prefix.capitalize()}-{rest.capitalize()}" if prefix == "CNI" else variable


def _value(headers: Mapping[str, str], variable: str, problems: list[str]) -> str:
    """Percent-decoded; empty where it is absent or no UTF-8."""
    encoded = headers.get(_header(variable), "")
    if "%" not in encoded:
        return encoded
    try:
        return unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        problems.append(f"{variable} is not UTF-8")
        return ""


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else 0


def _pod(arguments: str) -> Pod:
    """Of CNI_ARGS as kubelet's runtimes set it. A name without a namespace is podman's: that is no pod."""
    pairs = _pairs(arguments)
    namespace, name = pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", "")
    if not namespace or not name:
        return Pod()
    return Pod(namespace=namespace, name=name, uid=pairs.get("K8S_POD_UID", ""))


def _shown(value: str) -> str:
    return repr(value if len(value) <= 64 else f"{value[:61]}...")
