"""Who may knock: limits on connections and on wrong passwords, by address.

Owns the counting. Holds no socket and no clock; time comes in.
"""

from __future__ import annotations

from collections import defaultdict

from ingest.config import ListenerSettings

BAN_S = 60.0
"""Wrong passwords are counted a minute, and above the limit an address is unheard for a minute."""
ADDRESSES_MAX = 100_000
"""Addresses with wrong passwords kept; beyond it the oldest are forgotten: memory is bounded first."""


class Admission:
    """Counts of one listener."""

    def __init__(self, settings: ListenerSettings) -> None:
        self._settings = settings
        self._open: dict[str, int] = defaultdict(int)
        self._total = 0
        self._failed: dict[str, tuple[float, int]] = {}

    def objection(self, address: str, now: float) -> str:
        """Why a new connection from ``address`` is refused; "" if it is not. ``now`` in seconds."""
        if self._total >= self._settings.connections_max:
            return "connections"
        if self._open.get(address, 0) >= self._settings.connections_per_address_max:
            return "connections_per_address"
        return "failed_logins" if self.banned(address, now) else ""

    def opened(self, address: str) -> None:
        """A connection from ``address`` was taken."""
        self._open[address] += 1
        self._total += 1

    def closed(self, address: str) -> None:
        """It is gone."""
        self._total -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def failed(self, address: str, now: float) -> None:
        """A wrong password, user or certificate name came from ``address``."""
        since, failures = self._failed.pop(address, (now, 0))
        if now - since >= BAN_S:
            since, failures = now, 0
        failures += 1
        # From the failure that reaches the limit on a whole minute of silence, not the rest of this one.
        if failures == self._settings.failed_logins_per_minute_max:
            since = now
        self._failed[address] = since, failures
        if len(self._failed) > ADDRESSES_MAX:
            del self._failed[next(iter(self._failed))]

    def banned(self, address: str, now: float) -> bool:
        """Whether ``address`` is unheard now."""
        since, failures = self._failed.get(address, (0.0, 0))
        return failures >= self._settings.failed_logins_per_minute_max and now - since < BAN_S
