"""One target's lane: order, superseding, retries and giving up, without a clock or a socket."""

from __future__ import annotations

from anomaly.alerts.lane import RETRY_S, Answer, Lane, Notice
from storage.batch import US_PER_S

FAILED = Answer("status_500")
HOUR_US = 3_600 * US_PER_S


def lane(in_air_max: int = 2, give_up_s: float = 86_400) -> Lane:
    return Lane(in_air_max, round(give_up_s * US_PER_S), lambda: 0.5)


def notice(rowid: int, alert: str = "a", revision: int = 1) -> Notice:
    return Notice(rowid, f"{alert}.{revision}.t", alert, revision, 0, 0, 0, b"{}")


def test_no_more_calls_are_in_the_air_than_allowed() -> None:
    one = lane(in_air_max=2)
    for n in range(3):
        one.add(notice(n, alert=str(n)), 0)
    first, second = one.take(0), one.take(0)
    assert first is not None
    assert second is not None
    assert one.take(0) is None
    one.land(first, Answer(), 1)
    third = one.take(1)
    assert third is not None
    assert third.rowid == 2


def test_the_newest_undelivered_revision_goes_and_the_others_do_not() -> None:
    one = lane()
    for revision in (1, 2, 3):
        one.add(notice(revision, revision=revision), 0)
    taken = one.take(0)
    assert taken is not None
    assert taken.revision == 3
    assert one.take(0) is None


def test_a_newer_revision_waits_for_the_call_in_the_air_and_then_replaces_it() -> None:
    one = lane()
    one.add(notice(1), 0)
    first = one.take(0)
    assert first is not None
    one.add(notice(2, revision=2), 0)
    assert one.take(0) is None
    assert [s.state for s in one.land(first, FAILED, 0)] == ["superseded"]
    second = one.take(0)
    assert second is not None
    assert second.revision == 2


def test_an_older_or_the_same_revision_is_not_taken_in_again() -> None:
    one = lane()
    one.add(notice(2, revision=2), 0)
    one.add(notice(1), 0)
    one.add(notice(2, revision=2), 0)
    assert len(one) == 1


def test_retries_are_dense_at_first_and_go_on_for_a_day() -> None:
    """The dead letter comes after give_up_s, never before, and the last try is at its end."""
    one, now, waits = lane(), 0, []
    one.add(notice(1), 0)
    while True:
        taken = one.take(now)
        assert taken is not None
        (settled,) = one.land(taken, FAILED, now)
        if settled.state == "dead":
            break
        assert one.take(settled.next_at - 1) is None
        waits.append((settled.next_at - now) / US_PER_S)
        now = settled.next_at
    assert tuple(waits[: len(RETRY_S)]) == RETRY_S
    assert now == 24 * HOUR_US


def test_what_was_never_tried_goes_before_retries() -> None:
    one = lane(in_air_max=1)
    one.add(notice(1, "a"), 0)
    taken = one.take(0)
    assert taken is not None
    (settled,) = one.land(taken, FAILED, 0)
    one.add(notice(2, "b"), 0)
    later = one.take(settled.next_at)
    assert later is not None
    assert later.alert_id == "b"


def test_a_pause_asked_for_holds_everything_and_is_bounded() -> None:
    one = lane()
    one.add(notice(1, "a"), 0)
    taken = one.take(0)
    assert taken is not None
    one.land(taken, Answer("status_429", retry_after_s=10**12), 0)
    one.add(notice(2, "b"), 0)
    assert one.take(23 * HOUR_US) is None
    assert one.wakes_at(0) == 24 * HOUR_US
    assert one.take(24 * HOUR_US) is not None


def test_gone_ends_all_that_waits_and_all_that_comes() -> None:
    one = lane(in_air_max=1)
    one.add(notice(1, "a"), 0)
    one.add(notice(2, "b"), 0)
    taken = one.take(0)
    assert taken is not None
    settled = one.land(taken, Answer("status_410", gone=True), 0)
    assert [(s.rowid, s.state) for s in settled] == [(1, "dead"), (2, "dead")]
    assert [s.state for s in one.add(notice(3, "c"), 0)] == ["dead"]
    assert one.take(HOUR_US) is None


def test_a_hopeless_call_is_a_dead_letter_at_once() -> None:
    one = lane()
    one.add(notice(1), 0)
    taken = one.take(0)
    assert taken is not None
    assert one.land(taken, Answer("address_refused", hopeless=True), 0)[0].state == "dead"


def test_what_an_operator_dropped_is_not_sent() -> None:
    one = lane()
    one.add(notice(1, "a"), 0)
    one.add(notice(2, "b"), 0)
    one.keep({2})
    taken = one.take(0)
    assert taken is not None
    assert taken.rowid == 2
    assert one.take(0) is None


def test_a_new_alert_goes_before_the_next_step_of_a_known_one() -> None:
    one = lane(in_air_max=1)
    for number, (alert, revision) in enumerate((("known", 2), ("other", 3), ("new", 1))):
        one.add(notice(number, alert, revision), 0)
    order = []
    while (sent := one.take(0)) is not None:
        order.append(sent.alert_id)
        one.land(sent, Answer(), 0)
    assert order == ["new", "known", "other"]


def test_what_a_restart_finds_old_is_tried_for_an_hour_more() -> None:
    """Engine and receiver come back from the same power cut two days later: one failed call is not the end."""
    one, now = lane(), 48 * HOUR_US
    one.add(notice(1), now)
    taken = one.take(now)
    assert taken is not None
    (settled,) = one.land(taken, FAILED, now)
    assert (settled.state, settled.next_at) == ("queued", now + US_PER_S)
    now += HOUR_US
    taken = one.take(now)
    assert taken is not None
    assert one.land(taken, FAILED, now)[0].state == "dead"


def test_a_target_that_wants_pauses_is_called_no_sooner_for_a_short_list() -> None:
    one = Lane(2, 24 * HOUR_US, lambda: 0.5, per_minute_max=2)
    now = 10 * HOUR_US
    for number in range(3):
        one.add(notice(number, alert=str(number)), now)
    first, second = one.take(now), one.take(now)
    assert first is not None
    assert second is not None
    one.land(first, Answer("status_429", retry_after_s=30.0), now)
    one.land(second, FAILED, now)
    assert one.take(now) is None, "twice in this minute, and asked to pause"
    assert one.wakes_at(now) == now + 60 * US_PER_S
    now += 60 * US_PER_S
    assert [n.rowid for n in (one.take(now), one.take(now)) if n is not None] == [2, 0]
