"""When a turn of the wire may wait longer, and whom that would keep waiting."""

from __future__ import annotations

import pytest

from ingest.slack import MESSAGES_MIN, WIDE, Slack

POLL_S = 0.02
CITY = {"messages": 2_300, "took_s": 0.003, "commit_s": 0.001, "backlog": False}


def test_a_city_whose_gateways_speak_in_turn_is_read_less_often() -> None:
    slack = Slack(POLL_S)
    waits = [slack.wait_s(**CITY, speakers=frozenset(range(n * 23, n * 23 + 24))) for n in range(20)]
    assert waits == [POLL_S * WIDE] * 20, "one gateway of 24 goes on from turn to turn"


def test_who_waits_for_acknowledgements_in_every_turn_does_not_wait_longer() -> None:
    slack = Slack(POLL_S)
    slack.wait_s(**CITY, speakers=frozenset(range(64)))
    assert [slack.wait_s(**CITY, speakers=frozenset(range(64))) for _ in range(5)] == [POLL_S] * 5
    assert slack.wait_s(**CITY, speakers=frozenset(range(40, 140))) == POLL_S * WIDE


@pytest.mark.parametrize(
    "said",
    [
        {"messages": MESSAGES_MIN - 1},
        {"took_s": 0.006},
        {"commit_s": 0.006},
        {"commit_s": None},
        {"backlog": True},
    ],
    ids=str,
)
def test_without_slack_turns_come_as_they_are_configured(said: dict[str, float]) -> None:
    assert Slack(POLL_S).wait_s(**{**CITY, **said}, speakers=frozenset({1})) == POLL_S
