"""Why the engine is not ready: every reason by its name, the same in /readyz, `yuzui status`, metrics and runbook.

Owns the names and when each holds. Reads the engine's parts; changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ingest.app import App

JUDGE_LAG_S_MAX: Final = 10.0
"""Queries and alerts this late are worth waking someone: five times what a query promises."""
JOURNAL_OLDEST_S_MAX: Final = 5.0
"""A disk that needs longer than this for one group is stalled."""
RUNBOOK: Final = "docs/runbook.md"

REASONS: Final[dict[str, str]] = {
    "link_down": "a connection to a broker is not up",
    "disk_full": "something could not be written for want of room",
    "disk_stalled": "a group of the journal waits long for its fsync",
    "starting": "the journal's tail is read again after a start",
    "judge_lags": "readings are acknowledged and not yet judged or visible",
    "clock_suspect": "our own clock cannot be believed",
    "unaccounted": "the counts of readings do not add up: a mistake of the engine's own",
}
"""Every reason there is, and in a few words what it is. Each is a heading of the runbook."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One that holds now: its name in REASONS, and a sentence with the figures of this moment."""

    code: str
    text: str

    def __post_init__(self) -> None:
        assert self.code in REASONS, self.code


def reasons(app: App, now: dict[str, Any]) -> list[Reason]:
    """Those that hold; ``now``: the vitals so far."""
    found = [Reason("link_down", f"link {name} is down: {link.why}") for name, link in app.links.down.items()]
    full = [part.disk.why for part in (app.judge, app.tiers) if part.disk.why]
    if app.committer.full:
        full.insert(0, f"acknowledgements are held until {app.committer.room_bytes_min} bytes are free")
    oldest_s = now["journal_oldest_s"]
    if full:
        found.append(Reason("disk_full", f"disk full: {'; '.join(full)}"))
    elif oldest_s > JOURNAL_OLDEST_S_MAX:
        found.append(
            Reason("disk_stalled", f"disk stalled: oldest reading waits {oldest_s:.0f} s for its fsync")
        )
    if not app.started:
        found.append(Reason("starting", "starting: replaying the journal"))
    elif now["judge_lag_s"] > JUDGE_LAG_S_MAX and not app.committer.full:
        found.append(Reason("judge_lags", f"judge lags {now['judge_lag_s']:.0f} s behind the journal"))
    if app.wire.clock.why:
        found.append(Reason("clock_suspect", app.wire.clock.why))
    if now["conservation_gap"]:
        found.append(Reason("unaccounted", f"{now['conservation_gap']} readings unaccounted for"))
    return found


def as_vitals(found: list[Reason]) -> dict[str, Any]:
    """What /healthz and the metrics show of them: sentences, names, and 0 or 1 of every reason there is."""
    codes = list(dict.fromkeys(reason.code for reason in found))
    return {
        "not_ready": [reason.text for reason in found],
        "not_ready_codes": codes,
        "not_ready_by_reason": {code: int(code in codes) for code in REASONS},
    }
