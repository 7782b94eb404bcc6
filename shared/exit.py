"""Exit codes of every service's process."""

from __future__ import annotations

STOPPED, START_AGAIN, WRONG_SETTINGS = 0, 1, 2
"""Asked to stop; a new start may help; somebody must change something first."""
