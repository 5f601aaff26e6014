"""Grouping: which alerts people hear of together, and when a group has something new to say.

Owns membership and that decision, one event at a time, within the outbox's transaction: state in SQLite, an index of
places in memory. After a rollback the object is thrown away and made again from the file. Knows nothing of targets.

An event of the city joins the storm it is linked to (anomaly.alerts.storms), by kind of point; a fault joins others of
its rule in the district, in the whole city when many districts have it; an outage is told by itself, by gateway. The
first alert is told at once, later ones only for a new worst severity; what else changed waits for the digest.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from math import isnan
from typing import Final

import orjson

from anomaly.alerts import groups, logbook
from anomaly.alerts.event import FIRING, RESOLVED, AlertEvent, unpacked
from anomaly.alerts.groups import CITY, DISTRICT, SINGLE, STORM, Group
from anomaly.alerts.policy import Policy, Silence, Standing, silence_of
from anomaly.alerts.storms import Storms
from anomaly.alerts.telling import Teller, facets_of
from anomaly.alerts.words import FIRST, FLAPPING, MERGED, OVER, REOPENED, STEP, mode_of
from storage.units import US_PER_S

KEPT_US: Final = 24 * 3600 * US_PER_S
"""A group takes in alerts until nothing was heard of it for this long: a gateway's backlog of a day finds its storm."""
NOBODY: Final[frozenset[str]] = frozenset()
OLD: Final = "old"
"""Why an alert is not told whose limit was crossed too long ago: nobody is paged for last night."""
FLAP_NEW: Final = 1
FLAP_TOLD: Final = 2
"""Of a group that comes back too often: people are still to be told so; they were told."""
_MEMBER: Final = (
    "INSERT OR REPLACE INTO member (id, grp, open, severity, severity_now, rule, class, kind, district, point_id, "
    "gateway_id, onset, lon, lat, held) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(slots=True)
class Member:
    """What is known of one alert in its group."""

    grp: str
    open: bool
    held: str


@dataclass(slots=True)
class _Fault:
    """The newest group under a key, for what does not go by place."""

    group: str
    rule: str
    scope: str
    active_at: int


class Grouping:
    """Judge's view of groups. In one transaction: ``begin``, ``follow`` for each new event, ``end``."""

    def __init__(self, db: sqlite3.Connection, policy: Policy, teller: Teller) -> None:
        self._db = db
        self._policy = policy
        self._settings = policy.alerts
        self._teller = teller
        self._storms = Storms(self._settings.group_km, round(self._settings.group_s * US_PER_S))
        self._fault_us = round(self._settings.fault_group_s * US_PER_S)
        self._flap_us = round(self._settings.flap_s * US_PER_S)
        self._faults: dict[str, _Fault] = {}
        self._groups: dict[str, Group] = {}
        self._silences: list[Silence] = []
        self._standing: list[Standing] = []
        self._now = 0
        self._tidied_at = 0
        self._fill()

    def _fill(self) -> None:
        """The indexes as the file has them."""
        newest = self._db.execute("SELECT max(active_at) FROM alert_group").fetchone()[0] or 0
        self._tidied_at = newest
        rows = self._db.execute(
            "SELECT id, key, rule, scope, active_at FROM alert_group WHERE scope <> 'storm' AND key <> id "
            "AND active_at >= ? ORDER BY active_at",
            (newest - max(KEPT_US, self._fault_us),),
        )
        for name, key, rule, scope, active_at in rows:
            self._faults[key] = _Fault(name, rule, scope, active_at)
        rows = self._db.execute(
            "SELECT g.id, g.key, m.onset, m.lon, m.lat FROM alert_group g JOIN member m ON m.grp = g.id "
            "WHERE g.scope = 'storm' AND g.active_at >= ? AND m.lon IS NOT NULL",
            (newest - KEPT_US,),
        )
        for name, key, onset, lon, lat in rows:
            self._storms.add(key, lon, lat, onset, name)

    def begin(self, now: int) -> None:
        """A transaction begins; ``now`` µs. What other processes changed is read anew."""
        self._now = now
        self._groups = {}
        self._silences = silences(self._db, now)
        self._standing = standing(self._db, self._policy)

    def end(self) -> None:
        """Keep what changed; the transaction may be committed."""
        for group in self._groups.values():
            groups.save(self._db, group)
        newest = max((group.active_at for group in self._groups.values()), default=0)
        if newest - self._tidied_at > KEPT_US:
            self._tidied_at = newest
            rows = self._db.execute("SELECT id FROM alert_group WHERE active_at >= ?", (newest - KEPT_US,))
            self._storms.keep({row[0] for row in rows})

    def follow(self, event: AlertEvent) -> None:
        """One new event, which the outbox holds already: into its group, and told if that is due."""
        known = self._known(event)
        group = self._group(known.grp) if known is not None else self._join(event)
        was_open, now_open = known is not None and known.open, event.type != RESOLVED
        again = now_open and group.open == 0 and group.members > 0 and group.told > 0
        held = self._held(event) if now_open else ""
        self._keep(event, group, now_open, held)
        group.members += known is None
        group.open += now_open - was_open
        group.worst = max(group.worst, event.severity)
        if known is None:
            group.active_at = max(group.active_at, event.recorded_at)
        group.widen(event.subject.lon, event.subject.lat)
        if event.rule in self._policy.inhibitors:
            self._standing = standing(self._db, self._policy)
        self._note(event, group, known, held)
        if held:
            return
        if now_open:
            self._tell_open(event, group, known is None, again)
        elif was_open:
            group.ended += group.told > 0
            if group.open == 0 and group.told and not group.over_told and not group.flapping:
                group.over_told = 1
                self._tell(group, event, OVER)

    def _tell_open(self, event: AlertEvent, group: Group, joined: bool, again: bool) -> None:
        if again:
            self._count_flap(event, group)
        reason = reason_to_tell(group, event.severity_now)
        if reason:
            self._tell(group, event, reason)
        elif joined:
            group.joined += 1
        else:
            group.stepped += 1

    def _count_flap(self, event: AlertEvent, group: Group) -> None:
        at = event.recorded_at
        times = [int(t) for t in group.flaps.split(",") if t and at - int(t) <= self._flap_us]
        times.append(at)
        group.flaps = ",".join(map(str, times[-self._settings.flap_max - 1 :]))
        if len(times) > self._settings.flap_max and not group.flapping:
            group.flapping = FLAP_NEW

    def _tell(self, group: Group, event: AlertEvent, reason: str) -> None:
        self._teller.tell(self._db, group, event, reason, self._now)

    def _held(self, event: AlertEvent) -> str:
        if not event.notify:
            return OLD
        facets = facets_of(event, event.severity_now)
        return self._policy.held(facets, self._silences, self._standing, event.recorded_at)

    def _note(self, event: AlertEvent, group: Group, known: Member | None, held: str) -> None:
        """What happened to the alert, in the logbook; being held only when that is new."""
        step = {RESOLVED: logbook.RESOLVED, FIRING: logbook.FIRED}.get(event.type, logbook.UPDATED)
        detail = f"severity {event.severity_now}" + (
            f", {mode}" if (mode := mode_of(event)) != "live" else ""
        )
        logbook.note(
            self._db, self._now, step, event.id, detail=detail + (", too old to call" if held == OLD else "")
        )
        if known is None and group.id != event.id:
            logbook.note(self._db, self._now, logbook.GROUPED, event.id, detail=group.id)
        if held and held != OLD and (known is None or known.held != held):
            kept = logbook.SILENCED if held.startswith("silence") else logbook.INHIBITED
            logbook.note(self._db, self._now, kept, event.id, detail=held)

    def _known(self, event: AlertEvent) -> Member | None:
        if event.revision == 1:
            return None
        row = self._db.execute("SELECT grp, open, held FROM member WHERE id = ?", (event.id,)).fetchone()
        return None if row is None else Member(row[0], bool(row[1]), row[2])

    def _keep(self, event: AlertEvent, group: Group, now_open: bool, held: str) -> None:
        subject = event.subject
        known = not (isnan(subject.lon) or isnan(subject.lat))
        self._db.execute(
            _MEMBER,
            (
                event.id, group.id, now_open, event.severity, event.severity_now, event.rule, event.alert_class,
                subject.kind, subject.district, subject.point_id, subject.gateway_id, event.onset,
                subject.lon if known else None, subject.lat if known else None, held,
            ),
        )  # fmt: skip

    def _group(self, name: str) -> Group:
        group = self._kept(name)
        assert group is not None, f"an alert of the unknown group {name}"
        return group

    def _kept(self, name: str) -> Group | None:
        """A group by its name of old or now; None where it was forgotten."""
        name = self._storms.group(name)
        if name not in self._groups:
            group = groups.load(self._db, name)
            if group is None:
                return None
            return self._groups.setdefault(group.id, group)
        return self._groups[name]

    def _found(self, event: AlertEvent, key: str, scope: str) -> Group:
        group = groups.founded(event, key, scope, mode_of(event))
        groups.save(self._db, group)
        self._groups[group.id] = group
        return group

    def _join(self, event: AlertEvent) -> Group:
        """The group of an alert that has none yet; linking two groups makes them one."""
        subject, mode = event.subject, mode_of(event)
        if not self._settings.group:
            return self._found(event, event.id, SINGLE)
        if event.alert_class == "fault":
            return self._join_fault(event, mode)
        if not subject.point_id or isnan(subject.lon) or isnan(subject.lat):
            # An area, or a point nobody knows the place of: by itself, and with itself when it comes back.
            key = f"{mode}/{event.rule}/{subject.point_id or subject.name}"
            return self._join_key(event, key, SINGLE, round(self._settings.group_s * US_PER_S))
        key = f"{mode}/{subject.kind}"
        near = (self._kept(name) for name in self._storms.near(key, subject.lon, subject.lat, event.onset))
        linked = [one for one in near if one is not None and event.recorded_at - one.active_at <= KEPT_US]
        if not linked:
            group = self._found(event, key, STORM)
        else:
            # What nobody was told of cannot go on telling.
            linked.sort(key=lambda one: (not one.told, one.onset, one.id))
            group = linked[0]
            for other in linked[1:]:
                self._merge(other, group)
        self._storms.add(key, subject.lon, subject.lat, event.onset, group.id)
        return group

    def _merge(self, other: Group, into: Group) -> None:
        """The older group keeps its id; who was told of the younger is told where it went."""
        was_told = other.told and not other.over_told
        speaker = lead(self._db, other.id)
        into.take_over(other)
        if into.over_told and was_told:
            into.over_told = 0
        self._storms.merge(other.id, into.id)
        self._db.execute("UPDATE member SET grp = ? WHERE grp = ?", (into.id, other.id))
        self._db.execute("UPDATE alert_group SET merged_into = ? WHERE merged_into = ?", (into.id, other.id))
        if was_told and speaker is not None:
            self._tell(other, speaker, MERGED)
        else:
            logbook.note(self._db, self._now, logbook.MERGED, other.id, detail=into.id)
        groups.save(self._db, other)
        self._groups.pop(other.id, None)

    def _join_fault(self, event: AlertEvent, mode: str) -> Group:
        subject, rule = event.subject, event.rule
        everywhere = f"{mode}/{rule}"
        if rule == "outage":
            own, scope, most = f"{everywhere}/{subject.gateway_id}", SINGLE, self._settings.outages_max
        elif rule == "device_outage":
            own, scope, most = f"{everywhere}/{subject.name}", SINGLE, self._settings.outages_max
        else:
            own, scope, most = f"{everywhere}/{subject.district}", DISTRICT, self._settings.fault_groups_max
        at = event.recorded_at
        fresh = self._faults.get(own)
        if fresh is None or at - fresh.active_at > self._fault_us:
            others = sum(
                one.rule == rule and one.scope == scope and at - one.active_at <= self._fault_us
                for key, one in self._faults.items()
                if key.startswith(everywhere)
            )
            if others >= most:
                own, scope = everywhere, CITY
        return self._join_key(event, own, scope, self._fault_us)

    def _join_key(self, event: AlertEvent, key: str, scope: str, within_us: int) -> Group:
        """The newest group under ``key`` if anything was heard of it lately, else a new one."""
        known = self._faults.get(key)
        kept = None if known is None else self._kept(known.group)
        if known is not None and kept is not None and event.recorded_at - known.active_at <= within_us:
            known.active_at = max(known.active_at, event.recorded_at)
            return kept
        group = self._found(event, key, scope)
        self._faults[key] = _Fault(group.id, event.rule, scope, event.recorded_at)
        return group


def reason_to_tell(group: Group, severity: int) -> str:
    """Why an open alert of ``severity`` makes its group be told at once; "" where it waits for the digest.

    Notes in the group that it is told.
    """
    if group.flapping == FLAP_NEW:
        group.flapping, reason = FLAP_TOLD, FLAPPING
    elif not group.told:
        reason = FIRST
    elif severity > group.told:
        reason = STEP
    elif group.over_told and not group.flapping:
        reason = REOPENED
    else:
        return ""
    group.told, group.over_told = max(group.told, severity), 0
    return reason


def silences(db: sqlite3.Connection, now: int) -> list[Silence]:
    """Every silence that may still matter, also to readings that are judged a day late."""
    return [silence_of(row) for row in db.execute("SELECT * FROM silence WHERE ends > ?", (now - KEPT_US,))]


def standing(db: sqlite3.Connection, policy: Policy) -> list[Standing]:
    """Open alerts people were told of that may inhibit others."""
    marks = ", ".join("?" * len(policy.inhibitors))
    names = any(one.same == "members" for one in policy.inhibits)
    rows = db.execute(
        "SELECT m.rule, m.district, m.gateway_id, m.severity_now, e.packed FROM member m "
        "JOIN alert_event e ON e.id = m.id AND e.newest = 1 "
        f"WHERE m.open = 1 AND m.held = '' AND m.rule IN ({marks})",
        policy.inhibitors,
    )
    return [
        Standing(rule, district, gateway, severity, _members(packed) if names else NOBODY)
        for rule, district, gateway, severity, packed in rows
    ]


def _members(packed: bytes | None) -> frozenset[str]:
    """Those an event names; nobody in one that an earlier version kept, which knew none, or kept no event at all."""
    return NOBODY if packed is None else frozenset(orjson.loads(packed).get("members", ()))


def lead(db: sqlite3.Connection, group_id: str) -> AlertEvent | None:
    """The newest event of the alert that speaks for a group: the worst open one, the first of these."""
    row = db.execute(
        "SELECT e.packed FROM member m JOIN alert_event e ON e.id = m.id AND e.newest = 1 WHERE m.grp = ? "
        "ORDER BY m.open DESC, m.severity_now DESC, m.severity DESC, m.onset, m.id LIMIT 1",
        (group_id,),
    ).fetchone()
    return None if row is None or row[0] is None else unpacked(row[0])
