"""The one table of errors that leave a service: name, CNI code, retry or not, HTTP status, hint.

Owns what an error is called and what a caller may do about it. Must not know how it is transported.
CNI codes below 100 are the CNI specification's ("Error codes"), ours start at 101 and are never re-used.
"""

from __future__ import annotations

import msgspec


class ErrorKind(msgspec.Struct, frozen=True, kw_only=True):
    """One row: `code` is the CNI error code, `retry` whether the same request may succeed later."""

    name: str
    code: int
    retry: bool
    http_status: int
    hint: str


def _kind(name: str, code: int, retry: bool, http_status: int, hint: str) -> ErrorKind:
    return ErrorKind(name=name, code=code, retry=retry, http_status=http_status, hint=hint)


ERRORS: dict[str, ErrorKind] = {
    kind.name: kind
    for kind in (
        _kind("version_unsupported", 1, False, 400, "use a cniVersion from 0.3.0 to 1.1.0"),
        _kind("field_unsupported", 2, False, 400, "remove the field or use a version that knows it"),
        _kind("container_unknown", 3, False, 404, "there is nothing to clean up for this container"),
        _kind(
            "environment_invalid",
            4,
            False,
            400,
            "the container runtime sets these variables; see the CNI specification",
        ),
        _kind("io_failed", 5, True, 500, "look at the agent's log on this node"),
        _kind("content_undecodable", 6, False, 400, "the network configuration must be one JSON object"),
        _kind("config_invalid", 7, False, 400, "correct the named key of the network configuration"),
        _kind("try_later", 11, True, 503, "the runtime repeats the request by itself"),
        _kind("not_available", 50, True, 503, "this node cannot attach pods now; see `orbweaver status`"),
        _kind(
            "limited_connectivity",
            51,
            True,
            503,
            "pods of this node may lack connectivity; see `orbweaver doctor`",
        ),
        _kind(
            "pool_exhausted",
            101,
            True,
            409,
            "free an address or add a range to a pool; `orbweaver explain pod` lists them",
        ),
        _kind("address_conflict", 102, True, 409, "another host on the network answers for this address"),
        _kind("gateway_silent", 103, True, 409, "check the gateway of the pool and the parent's VLAN"),
        _kind(
            "parent_missing",
            104,
            True,
            404,
            "`master` must name a link of the node; `ip link` there lists them",
        ),
        _kind("no_rdma_device", 105, True, 404, "the parent has no RDMA device that is free"),
        _kind("lease_lost", 106, True, 409, "delete the pod; its address belongs to a newer sandbox"),
        _kind("annotation_invalid", 107, False, 422, "correct the annotation of the pod or of its namespace"),
        _kind("no_pool", 108, True, 409, "`orbweaver explain pod` tells why each pool was left out"),
        _kind("pool_unknown", 109, True, 404, "create the SpiderIPPool or correct its name"),
        _kind("pod_unknown", 110, True, 404, "apply the Pod's manifest before it is attached"),
        _kind(
            "pod_dead",
            111,
            False,
            410,
            "this pod is terminating, finished or replaced by another of the same name",
        ),
        _kind("network_unknown", 112, True, 404, "create the SpiderMultusConfig or correct `network`"),
        _kind("netns_refused", 113, False, 400, "CNI_NETNS must be a network namespace of the pod's own"),
        _kind("link_exists", 114, False, 409, "the pod already has a link of this name that is not ours"),
        _kind("kernel_refused", 115, True, 500, "the kernel's answer is in the message"),
        _kind("credential_refused", 116, False, 401, "run `orbweaver cni install` again for this node"),
        _kind("attempt_superseded", 117, True, 409, "a DEL for this attachment came after this ADD began"),
        _kind("wrong_node", 118, False, 409, "the pod is scheduled to another node"),
        _kind("not_in_this_version", 119, False, 501, "this form is accepted and stored, but not served yet"),
        _kind(
            "log_unsafe",
            120,
            True,
            503,
            "the lease log is not safe to write; `orbweaver doctor` tells what settles it",
        ),
        _kind(
            "check_failed", 121, True, 409, "the pod's links differ from what was attached; re-create the pod"
        ),
        _kind("invalid", 122, False, 422, "correct the named fields"),
        _kind("internal", 199, True, 500, "this is a defect of ours; the agent's log has the trace"),
    )
}

BY_CODE: dict[int, ErrorKind] = {kind.code: kind for kind in ERRORS.values()}


class OrbweaverError(Exception):
    """A failure with a row in ERRORS; `message` names the object, the field and what was found."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.kind = ERRORS[name]
        self.message = message
