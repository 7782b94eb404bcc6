"""The detached supervisor: `python -m services.standalone FD REQUEST`, started by `orbweaver up --detach` only."""

from __future__ import annotations

import sys

import msgspec

from services.standalone.app import UpRequest
from services.standalone.detach import supervise_detached

if __name__ == "__main__":
    sys.exit(supervise_detached(msgspec.json.decode(sys.argv[2], type=UpRequest), int(sys.argv[1])))
