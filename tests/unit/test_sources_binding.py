"""Whose a reading is: topics of sources, templates, units, what must agree, what is refused and how often."""

from __future__ import annotations

import math

import orjson
import pytest

from ingest import routes
from ingest.codecs import binding
from ingest.config import Config, SourceSettings
from ingest.decode.messages import Chunk, Messages
from ingest.decode.refused import Refused
from ingest.ratelimit import RateLimit
from ingest.routes import Routes
from ingest.sourcetopics import SourceTopics
from storage.points import PointTable
from storage.records import Refusal
from tests.tables import point_table

NOW = 1_790_000_000_000_000
MS = NOW // 1000


class City:
    """Points a-x, a-y, b-x of source `env` and p-x of source `other`, decoded as the engine would."""

    def __init__(self, *, on_receipt: tuple[int, ...] = (), lenient: bool = False, **keys: object) -> None:
        self.points: PointTable = point_table(4, source="env", on_receipt=on_receipt)
        self.points.point_id = ["a-x", "a-y", "b-x", "p-x"]
        self.points.topic = ["", "", "own/b", ""]
        self.points.sources = ["env", "other"]
        self.points.source[3] = 1
        self.points.retired[1] = False
        body = {
            "name": "env",
            "topics": ["env/{device}/up"],
            "value": "m.*",
            "time": "t",
            "device": "d",
            **keys,
        }
        sources = [SourceSettings.model_validate(body), SourceSettings(name="other")]
        self.routes = Routes(self.points, Config(source=sources))
        self.routes.set_window(NOW, lenient=lenient)
        self.decoder = Messages(self.routes, 1000)

    def say(
        self, topic: str, body: object, credential: str | None = None, retained: bool = False
    ) -> tuple[list[tuple[str, int, float | str, int]], list[Refusal]]:
        """(rows, refusals) of one message."""
        table = self.routes.table(credential, lambda name, t: t.startswith(f"env/{name}"))
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        chunk = Chunk([topic.encode()], [raw], [0x32 | retained], "c", retained)
        self.decoder.feed(table, chunk, NOW)
        batch, refusals = self.decoder.take(NOW)
        ids = [self.points.point_id[p] for p in batch.point.tolist()]
        values = ["missing" if math.isnan(v) else v for v in batch.value.tolist()]
        return list(zip(ids, batch.time.tolist(), values, batch.device_flag.tolist(), strict=True)), refusals

    def reasons(self, topic: str, body: object, credential: str | None = None) -> list[str]:
        rows, refusals = self.say(topic, body, credential)
        assert rows == []
        return [r.reason for r in refusals]


def test_points_are_named_by_the_template_after_renames() -> None:
    city = City(point_id="{device}-{quantity}", quantities={"PM": {"as": "x"}, "O3": {"as": "y"}})
    assert city.say("env/a/up", {"t": MS, "m": {"PM": 1, "O3": 2}})[0] == [
        ("a-x", NOW, 1.0, 0),
        ("a-y", NOW, 2.0, 0),
    ]


def test_units_are_converted_and_codes_for_no_value_are_missing_before_that() -> None:
    city = City(
        quantities={"x": {"factor": 1000.0, "offset": -2.0, "missing": [-1.0]}, "y": {}},
        missing_values=[-999.0],
    )
    assert city.say("env/a/up", {"t": MS, "m": {"x": 0.035, "y": 1}})[0] == [
        ("a-x", NOW, 33.0, 0),
        ("a-y", NOW, 1.0, 0),
    ]
    assert city.say("env/a/up", {"t": MS, "m": {"x": -1, "y": -999}})[0] == [
        ("a-x", NOW, "missing", 9),
        ("a-y", NOW, "missing", 9),
    ]
    assert city.say("env/a/up", {"t": MS, "m": {"x": None, "y": -1}})[0] == [
        ("a-x", NOW, "missing", 9),
        ("a-y", NOW, -1.0, 0),
    ]


def test_what_a_conversion_makes_infinite_is_refused() -> None:
    city = City(quantities={"x": {"factor": 1e300}})
    assert city.reasons("env/a/up", {"t": MS, "m": {"x": 1e300}}) == ["not_finite"]


def test_topic_and_payload_must_agree_on_the_device() -> None:
    city = City()
    assert city.say("env/a/up", {"d": "a", "t": MS, "m": {"x": 1}})[0] == [("a-x", NOW, 1.0, 0)]
    assert city.reasons("env/b/up", {"d": "a", "t": MS, "m": {"x": 1}}) == ["identity_mismatch"]
    assert city.reasons("env/a/up", {"d": 5, "t": MS, "m": {"x": 1}}) == ["identity_mismatch"]


@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        ("env/a/up", {"d": "a", "t": MS, "m": {"z": 1}}, "unknown_point"),
        ("env/p/up", {"d": "p", "t": MS, "m": {"x": 1}}, "identity_mismatch"),  # another source's point
        ("env/a/up", {"d": "a", "m": {"x": 1}}, "no_time"),
        ("env/a/up", {"d": "a", "t": MS - 8 * 86_400_000, "m": {"x": 1}}, "time_window"),
        ("env/a/up", {"d": "a", "t": MS + 700_000, "m": {"x": 1}}, "time_window"),
        ("env/a/up", b"", "bad_json"),
        ("nobody/up", {"d": "a", "t": MS, "m": {"x": 1}}, "unknown_topic"),
    ],
)
def test_what_is_refused_and_why(topic: str, body: object, reason: str) -> None:
    assert City().reasons(topic, body) == [reason]


def test_a_retired_point_is_refused() -> None:
    city = City()
    city.points.retired[0] = True
    assert city.reasons("env/a/up", {"d": "a", "t": MS, "m": {"x": 1}}) == ["retired_point"]


def test_good_readings_stay_and_the_messages_bytes_are_kept_once() -> None:
    body = {"d": "a", "t": MS, "m": {"x": 1, "z": 2, "y": "no", "w": 3}}
    rows, refusals = City().say("env/a/up", body)
    assert rows == [("a-x", NOW, 1.0, 0)]
    assert sorted(r.reason for r in refusals) == ["unknown_point", "unknown_point", "wrong_type"]
    assert [r.raw for r in refusals] == [orjson.dumps(body), b"", b""]


def test_a_message_whose_first_refusal_was_not_kept_has_its_bytes_with_the_next() -> None:
    city = City(quarantine_bytes_max=100)
    small, large = {"d": "a", "t": MS, "m": {"z": 1}}, {"d": "a", "t": MS, "m": {"z": "x" * 100}}
    assert [len(r.raw) > 0 for r in city.say("env/a/up", small)[1]] == [True]
    assert city.say("env/a/up", large)[1] == []
    assert city.decoder.counts["quarantined"] == 2
    assert city.decoder.counts["quarantined_not_kept"] == 1


def test_beyond_its_bytes_a_sources_refusals_are_counted_only_and_other_sources_are_not_touched() -> None:
    city = City(quarantine_bytes_max=1000)
    kept = sum(len(city.say("env/a/up", b"x" * 100)[1]) for _ in range(50))
    assert kept == 10
    assert city.decoder.counts["quarantined"] == 50
    assert city.decoder.counts["quarantined_not_kept"] == 40
    assert len(city.say("nobody", b"x" * 100)[1]) == 1


def test_readings_without_a_time_are_timed_on_receipt_where_the_registry_says_so() -> None:
    city = City(on_receipt=(0,))
    assert city.say("env/a/up", {"m": {"x": 1}})[0] == [("a-x", NOW, 1.0, 0)]
    assert city.decoder.counts["untimed"] == 1
    assert city.say("env/a/up", {"m": {"x": 1}}, retained=True) == ([], [])
    assert city.decoder.counts["retained_ignored"] == 1


def test_while_our_clock_is_suspect_what_is_outside_the_window_is_kept_with_flag_2() -> None:
    city = City(lenient=True)
    at = MS - 30 * 86_400_000
    assert city.say("env/a/up", {"t": at, "m": {"x": 1}})[0] == [("a-x", at * 1000, 1.0, 2)]


def test_a_points_own_topic_says_whose_a_reading_is_and_the_payload_must_agree() -> None:
    city = City(value="v", quantity=None)
    assert city.say("own/b", {"t": MS, "v": 1})[0] == [("b-x", NOW, 1.0, 0)]
    assert city.say("own/b", {"d": "b-x", "t": MS, "v": 1})[0] == [("b-x", NOW, 1.0, 0)]
    assert city.reasons("own/b", {"d": "a-x", "t": MS, "v": 1}) == ["identity_mismatch"]


def test_a_bare_number_on_a_topic_that_names_everything() -> None:
    city = City(topics=["env/{device}/{quantity}"], on_receipt=(1,))
    assert city.say("env/a/y", b"4.5")[0] == [("a-y", NOW, 4.5, 0)]
    assert city.reasons("env/a/x", b"4.5") == ["no_time"]


def test_credentials_limit_topics_and_a_source_may_have_one_of_its_own() -> None:
    body = {"d": "a", "t": MS, "m": {"x": 1}}
    assert City().say("env/a/up", body, credential="a")[0]
    assert City().reasons("env/a/up", body, credential="b") == ["not_allowed"]
    owned = City(credential="bureau")
    assert owned.reasons("env/a/up", body, credential="a") == ["not_allowed"]
    assert owned.say("env/a/up", body)[0], "a broker's messages bring no credential"


def test_a_source_that_sends_too_much_is_held_to_its_rate_and_the_rest_is_in_quarantine() -> None:
    city = City(rate_max_per_s=2.0)
    body = {"d": "a", "t": MS, "m": {"x": 1, "y": 1}}
    stored = [bool(city.say("env/a/up", body)[0]) for _ in range(14)]
    assert stored == [True] * 10 + [False] * 4
    assert city.decoder.refused_by_reason["env", "rate_limited"] == 4


def test_a_rate_fills_with_time_and_a_clock_that_goes_back_fills_nothing() -> None:
    rate = RateLimit(10.0)
    assert rate.admits(0)
    rate.took(500)
    assert not rate.admits(1_000_000)
    assert not rate.admits(-5_000_000)
    assert rate.admits(40_000_000)


def test_a_flood_of_invented_devices_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "REFUSED_KEYS_MAX", 50)
    city = City(topics=["env/#"])
    for number in range(500):
        city.say("env/x", {"d": f"nobody-{number}", "t": MS, "m": {"x": 1}})
    binding_of = city.routes.sources["env"].binding
    assert binding_of is not None
    assert len(binding_of.shared) <= 51


def test_a_codec_that_falls_over_stops_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        name = "broken"

        def parse(self, topic: str, payload: bytes) -> None:
            raise ZeroDivisionError("by mistake")

    city = City()
    city.routes.sources["env"].codec = Broken()  # type: ignore[assignment]
    assert city.reasons("env/a/up", b"1") == ["codec_fault"]
    assert city.reasons("env/a/up", b"1") == ["codec_fault"]
    assert "a mistake of ours" in caplog.text


def test_after_a_reload_codecs_and_rates_go_on_where_the_settings_are_the_same() -> None:
    old, same, other = City(rate_max_per_s=1.0), City(rate_max_per_s=1.0), City(rate_max_per_s=2.0)
    for new in (same, other):
        new.routes.keep(old.routes)
    assert same.routes.sources["env"].codec is old.routes.sources["env"].codec
    assert same.routes.sources["env"].rate is old.routes.sources["env"].rate
    assert other.routes.sources["env"].codec is not old.routes.sources["env"].codec


def topics(**filters: list[str]) -> SourceTopics:
    return SourceTopics(SourceSettings(name=name, topics=these) for name, these in filters.items())


def test_the_most_literal_filter_wins() -> None:
    tree = topics(all=["city/#"], env=["city/env/#"], one=["city/env/a/up"], ups=["city/+/+/up"], root=["#"])
    found = {t: getattr(tree.find(t), "source", None) for t in (
        "city/env/a/up", "city/env/b/up", "city/env", "city/flood/x", "city/flood/x/up", "city", "other", "$SYS/x",
    )}  # fmt: skip
    assert found == {
        "city/env/a/up": "one", "city/env/b/up": "env", "city/env": "env", "city/flood/x": "all",
        "city/flood/x/up": "ups", "city": "all", "other": "root", "$SYS/x": None,
    }  # fmt: skip


def test_a_dead_end_of_literal_levels_falls_back_to_wildcards() -> None:
    tree = topics(a=["x/y/z"], b=["x/+/w"])
    assert getattr(tree.find("x/y/w"), "source", None) == "b"
    assert tree.find("x/y") is None


def test_levels_that_name_device_and_quantity() -> None:
    found = topics(env=["epb/{device}/data/{quantity}"]).find("epb/s1/data/pm25")
    assert found is not None
    assert (found.device, found.quantity) == ("s1", "pm25")
    numbered = SourceTopics([SourceSettings(name="n", topics=["a/#"], device="topic:2")])
    short, whole = numbered.find("a/b"), numbered.find("a/b/c")
    assert short is not None
    assert whole is not None
    assert (short.device, whole.device) == ("", "c")


def test_a_thousand_filters_are_found_level_by_level() -> None:
    tree = topics(
        **{f"s{i}": [f"city/s{i}/{{device}}/up", f"city/s{i}/{{device}}/alarm"] for i in range(365)}
    )
    looked = [0]
    original = SourceTopics._matching

    def counting(self: SourceTopics, *where: object) -> object:
        looked[0] += 1
        return original(self, *where)  # type: ignore[arg-type]

    tree._matching = counting.__get__(tree)  # type: ignore[method-assign]
    found = tree.find("city/s364/d/up")
    assert found is not None
    assert found.source == "s364"
    assert looked[0] <= 5


def test_a_refused_keeps_its_explanation_short() -> None:
    assert len(Refused("bad_json", "x" * 10_000).detail) == 200


def test_a_flood_of_topics_below_a_filter_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LEARNED_MIN", 50)
    city = City(topics=["env/#"])
    for number in range(500):
        assert len(city.say(f"env/{number}", {"d": "a", "t": MS, "m": {"x": number}})[0]) == 1
    table = city.routes.table(None, lambda *_: True)
    assert 0 < len(table) <= 50 + len(city.points)
    city.say("own/b", {"t": MS, "m": {"x": 1}})
    city.say("env/501", {"d": "a", "t": MS, "m": {"x": 1}})
    assert b"own/b" in table, "what the registry lists is not forgotten with them"


def test_lists_of_keys_that_never_come_again_are_not_remembered_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(binding, "SHAPE_KEYS_MAX", 50)
    city = City()
    tables = [city.routes.table(None, lambda *_: True)[f"env/{device}/up".encode()].keys for device in "ab"]
    for number in range(500):
        for device, good in (("a", 2), ("b", 1)):
            # A bad one among them: the message is read one by one, into lists of its own.
            body = {"t": MS, "m": {"x": number, "y": number, "bad": "text"}}
            assert len(city.say(f"env/{device}/up", body)[0]) == good
            held = sum(len(shape.keys) for table in tables if table for shape in table._shapes.values())
            assert 0 < held <= 50
