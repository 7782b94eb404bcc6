"""Whether RDMA devices belong to network namespaces: the mode of the whole system, asked by RDMA netlink.

Owns one request (kernel: drivers/infiniband/core/nldev.c, nldev_sys_get_doit; numbers from include/uapi/rdma/rdma_netlink.h). There is
no file for it in sysfs. Must not know devices.
"""

from __future__ import annotations

import os
import socket
import struct

NETLINK_RDMA = 20
SYS_GET = (5 << 10) + 6
"""RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_SYS_GET)"""
NETNS_MODE_ATTRIBUTE = 66
"""RDMA_NLDEV_SYS_ATTR_NETNS_MODE, u8: 1 where every namespace sees every device"""
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT_S = 1.0


def read_netns_mode() -> str:
    """`shared`, `exclusive`, or empty where the kernel has no RDMA or does not tell (before 5.2)."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_RDMA) as link:
            link.settimeout(_TIMEOUT_S)
            link.sendto(_HEADER.pack(_HEADER.size, SYS_GET, _NLM_F_REQUEST, 1, os.getpid()), (0, 0))
            return netns_mode(link.recv(65536))
    except OSError:
        return ""


def netns_mode(message: bytes) -> str:
    """The mode in the kernel's answer; empty for an error or another message. Pure."""
    if len(message) < _HEADER.size:
        return ""
    size, kind, _, _, _ = _HEADER.unpack_from(message)
    if kind in (_NLMSG_ERROR, 0) or kind != SYS_GET:
        return ""
    at, end = _HEADER.size, min(size, len(message))
    while at + _ATTRIBUTE.size < end:
        length, attribute = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            return ""
        if attribute == NETNS_MODE_ATTRIBUTE and length > _ATTRIBUTE.size:
            return "shared" if message[at + _ATTRIBUTE.size] else "exclusive"
        at += (length + 3) & ~3
    return ""
