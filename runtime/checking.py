"""What a check of the doctor answers."""

from __future__ import annotations

from dataclasses import dataclass

OK, MISSING, ABSENT = "ok", "missing", "absent"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str
    """`ok`; `missing`: this machine could use it; `absent`: not here, and not needed here."""
    found: str
    """What is there, or why it does not work."""
    mend: str = ""
    """The line that mends it; empty where nothing is to be mended."""
