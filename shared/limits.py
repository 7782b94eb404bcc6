"""Every limit of the system in one place, units last. Must not import anything of ours."""

from __future__ import annotations

CNI_BODY_MAX_BYTES = 512 * 1024
"""A network configuration above this is answered with error 6."""
RECORD_MAX_BYTES = 512 * 1024
"""One lease-log record; JetStream headers are not counted against max_payload, so stay well below it."""
CHUNK_BYTES = 512 * 1024
"""One message of a snapshot."""
OBJECT_MAX_BYTES = 768 * 1024
"""One object of the user as a fact, as JSON; the bus takes 1 MiB a message."""
SUBJECT_MAX_BYTES = 1024
"""A subject made of names that somebody chose; the server closes connections above 4096 (max_control_line)."""
TOMBSTONE_KEPT_S = 24 * 3600
"""How long the stream of facts tells of a deleted object; who follows facts must not be away for longer and go on where it was."""
CONTAINER_ID_MAX_BYTES = 255
IFNAME_MAX_BYTES = 15
"""Linux IFNAMSIZ is 16 with its NUL (include/uapi/linux/if.h)."""
NAME_MAX_BYTES = 253
"""Names of objects and nodes, and UIDs (RFC 1123 subdomain)."""
ATTEMPT_MAX_BYTES = 128
"""An attempt is named by 32 hex digits; others may choose names of their own."""
INTERFACES_PER_POD_MAX = 32
POOLS_PER_INTERFACE_MAX = 512
"""Names and wildcards that one request gives for one interface and family."""
QUEUE_MAX_REQUESTS = 8192
"""Allocate requests that wait in one allocator; beyond it the node with the most is told to try later."""
QUEUE_NODE_MAX_REQUESTS = 1024
"""Of one node: more than the attaches of all its pods at once."""

ATTEMPT_MEMORY_S = 600.0
"""How long a released attempt is remembered, so that a late allocate of it is refused."""
COOLDOWN_IPAM_S = 5.0
"""Rest of an address whose link somebody else removes after our DEL."""
COOLDOWN_ADOPTED_S = 60.0
"""Rest of an address that another IPAM gave: no agent of ours saw its link go."""
COOLDOWN_MAX_S = 3600.0
"""No release makes an address rest longer."""
ADD_DEADLINE_S = 60.0
DEL_DEADLINE_S = 30.0
CHECK_DEADLINE_S = 10.0
GC_DEADLINE_S = 25.0
STATUS_DEADLINE_S = 1.0
LEADER_TTL_S = 1.0
LEADER_RENEW_S = 0.3
SNAPSHOT_RECORDS = 20_000
LOG_HISTORY_S = 30 * 24 * 3600.0
RECONCILE_INTERVAL_S = 30.0
RECONCILE_SWEEP_MIN = 5
RECONCILE_SWEEP_FRACTION = 0.1
WITNESS_INTERVAL_S = 10.0
WITNESS_SILENT_S = 30.0
"""A node that told nothing for so long cannot be reached."""
WITNESS_COALESCE_S = 1.0
"""A change of a node's journal is reported with all others of so long."""
WITNESS_UNSETTLED_MAX = 256
"""Containers with something under way that a report names; with more, nothing is compared."""
WITNESS_CLAIMS_MAX = 5_000
"""Claims of one node that are listened to at all."""
WITNESS_UNKNOWN_MAX = 256
"""Addresses that one node can keep from others by claiming what nobody else knows of."""
DISAGREEMENTS_SHOWN_MAX = 100
KEPT_SHOWN_MAX = 4_096
"""Addresses in quarantine that a tool is told: those of sixteen nodes that claim all they can."""
GENERATION_MAX = 1 << 48
"""No lease gets there; a claim beyond it is not believed."""
MARK_COUNT_MAX = 1 << 48
"""No log has so many records, or losses behind it; a mark beyond it is none."""
MARK_SHARE_INTERVAL_S = 5.0
"""So much later, at most, the mark of an allocator that leads is on its way to all replicas; and so often it is written."""
MARK_WAIT_S = 0.3
"""How long a new leader waits for the marks of nodes that do not answer; it is part of the fail-over."""
MARK_COLD_WAIT_S = 1.4
"""The same from its start, where the leader is a process that has just begun: nodes come back at the same time as it does."""
REBUILD_WAIT_S = 8.0
"""How long a rebuild waits for the journals of nodes that are silent."""
REBUILD_MIRRORED_WAIT_S = 20.0
"""How long a rebuild waits for what the objects of Kubernetes tell of the nodes that are silent."""
REBUILD_LISTEN_S = 3.0
"""How long a rebuild listens at least, for nodes that nobody knows of."""
MTU_MIN_BYTES = 68
MTU_MIN_IPV6_BYTES = 1280
INT32_MAX = (1 << 31) - 1
"""Of MTUs and rates of a network: whoever else reads the object holds them in 32 bits."""
PAGE_MAX_LEASES = 2000
PAGE_MAX_BYTES = 768 * 1024
"""Leases in one answer of a query, and their bytes; an answer must stay below max_payload (1 MiB)."""

CNI_TYPES_SERVED = frozenset(("macvlan",))
"""The links that our own agent makes in this version; under Multus, plugins of others make theirs."""
