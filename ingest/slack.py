"""Slack: how long Wire may wait before its next turn, so that one turn brings more where nobody is kept waiting by it.

Owns the rule. Pure: is told what a turn brought and what it cost; asks no clock.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

WIDE: Final = 1.5
"""How much longer than ``poll_ms`` a wait may be: of what a turn costs whatever it brings a third less is then paid.
At 20 ms the 50 that a reading may take to the journal are kept."""
MESSAGES_MIN: Final = 500
"""A turn that brought fewer is not worth making anyone wait."""
SHARE_MAX: Final = 0.25
"""Of ``poll_ms`` that a turn may take, and a commit: with more there is no slack."""


class Slack:
    """The rule, and who spoke in the turn before. ``poll_s``: the wait without slack, in seconds."""

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._most_s = poll_s * SHARE_MAX
        self._spoke: Set[int] = frozenset()

    def wait_s(
        self, messages: int, speakers: Set[int], took_s: float, commit_s: float | None, backlog: bool
    ) -> float:
        """Seconds from the due time of a turn to that of the next.

        messages  it brought; ``speakers``: numbers of the connections that brought them
        took_s    its own time; ``commit_s`` of the newest commit, None where there was none
        backlog   it left bytes unread

        Who speaks in every turn may be waiting for acknowledgements, as whoever has no more than a few messages in
        flight: where most speakers spoke in the turn before, they would only be slowed down.
        """
        again = 2 * len(self._spoke & speakers) > len(speakers)
        self._spoke = speakers
        if backlog or again or messages < MESSAGES_MIN or commit_s is None:
            return self._poll_s
        quick = took_s <= self._most_s and commit_s <= self._most_s
        return self._poll_s * WIDE if quick else self._poll_s
