"""Which gaps the journal is told of while connections to brokers come and go."""

from __future__ import annotations

from ingest.brokerlinks import BrokerLinks
from ingest.config import SubscriberSettings
from ingest.mqtt.links import LinkEvent
from storage.records import Gap

CITY = SubscriberSettings.model_validate(
    {"name": "city", "url": "mqtt://127.0.0.1", "slices": [["a/#"], ["b/#"]]}
)


def test_a_gap_lasts_until_every_link_that_was_up_is_up_again() -> None:
    """The journal has one end of it, not one for each link; a link that never was up holds no gap open."""
    gaps: list[Gap] = []
    links = BrokerLinks([CITY], gaps.append)
    assert {name: one.since_us for name, one in links.down.items()} == {"city/1": 0, "city/2": 0}
    links.heard(LinkEvent("connect_failed", "city/1", 5, 5, "Connection refused"))
    assert links.down["city/1"].why == "Connection refused"
    for name in ("city/1", "city/2"):
        links.heard(LinkEvent("link_up", name, 1, 10))
    assert (links.down, gaps) == ({}, [])
    for name, at in (("city/1", 20), ("city/2", 30)):
        links.heard(LinkEvent("link_down", name, at, 0, "reset"))
    links.heard(LinkEvent("link_up", "city/2", 30, 40))
    assert [gap.end for gap in gaps] == [0, 0]
    links.heard(LinkEvent("link_up", "city/1", 20, 50))
    assert (gaps[-1].begin, gaps[-1].end, len(gaps)) == (20, 50, 3)
    links.heard(LinkEvent("session_lost", "city/1", 20, 50))
    assert gaps[-1].kind == "session_lost"
