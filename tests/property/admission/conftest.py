"""No deadline for one example: the machine is shared, and what is slow is measured elsewhere."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("admission", deadline=None)
settings.load_profile("admission")
