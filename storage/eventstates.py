"""Where an event can stand. Owns the words and their order; imports nothing, for a config is read without Arrow."""

from __future__ import annotations

from typing import Final

STATES: Final[dict[str, int]] = {
    "accepted": 1,
    "assigned": 2,
    "handled": 3,
    "closed": 4,
    "refused": 4,
    "cancelled": 4,
    "rated": 5,
}
"""Where an event can stand, for every type, and the order of its life: of two steps with one time the higher one is the
later. 4 and above is over."""
