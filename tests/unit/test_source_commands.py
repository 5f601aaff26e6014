"""`yuzui source` and the numbers of each source: what a person types, reads and is told to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from ingest.sourceproposal import guess
from ingest.sourcestats import SourceStats
from storage.batch import RawBatch
from tests.engines import yuzui_here
from tests.tables import point_table

CAPTURES: list[tuple[object, dict[str, object]]] = [
    (
        {
            "sn": "AQ-17",
            "collectTime": "2026/11/27 16:05:00",
            "rssi": -71,
            "data": {"pm25": 0.035, "pm10": 61},
        },
        {"device": "sn", "time": "collectTime", "value": "data.*", "time_format": "%Y/%m/%d %H:%M:%S"},
    ),
    (
        {
            "dev": "A",
            "list": [
                {"name": "pm25", "v": 3.5, "ts": 1790000000000},
                {"name": "o3", "v": 4, "ts": 1790000000000},
            ],
        },
        {
            "device": "dev",
            "time": "list[].ts",
            "quantity": "list[].name",
            "value": "list[].v",
            "time_unit": "ms",
        },
    ),
    (
        [{"id": 5, "t": 1790000000, "temp": 1.5, "hum": 3}],
        {"device": "id", "time": "t", "time_unit": "s", "value": "*"},
    ),
    (
        {"a": {"station": "x", "value": "12.5"}},
        {"device": "a.station", "value": "a.value", "text_numbers": True},
    ),
]


@pytest.mark.parametrize(("body", "expected"), CAPTURES)
def test_a_mapping_is_guessed_from_a_message_and_the_file_reads_it(
    tmp_path: Path, body: object, expected: dict[str, object]
) -> None:
    raw = orjson.dumps(body)
    found = guess(raw)
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected
    captured = tmp_path / "m.json"
    captured.write_bytes(raw)
    out = tmp_path / "sys.toml"
    nowhere = str(tmp_path / "no.toml")
    made = yuzui_here(
        "source", "new", "sys", "--message", str(captured), "--topic", "sys/up", "--out", str(out)
    )
    assert made.returncode == 0, made.stderr
    tried = yuzui_here("source", "test", str(out), "--message", str(captured), "--json", "-c", nowhere)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    report = orjson.loads(tried.stdout)
    assert report["refusals"] == []
    assert len(report["readings"]) >= 1


def test_a_new_file_overwrites_nothing_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    out = tmp_path / "a.toml"
    assert yuzui_here("source", "new", "a", "--out", str(out)).returncode == 0
    before = out.read_text()
    again = yuzui_here("source", "new", "a", "--codec", "csv", "--out", str(out))
    assert again.returncode == 2
    assert "nothing was changed" in again.stderr
    assert out.read_text() == before
    assert yuzui_here("source", "new", "A b").returncode == 2
    assert 'codec = "hj212"' in yuzui_here("source", "new", "h", "--codec", "hj212", "--out", "-").stdout


def test_every_refusal_of_a_trial_comes_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('topics = ["s/{device}"]\ntime = "t"\nvalue = "m.*"\ntime_unit = "s"\n')
    (tmp_path / "yuzui.toml").write_text("[[source]]\nname = 'main'\n")
    (tmp_path / "points.csv").write_text("point_id,source,kind,topic\nd-x,s,k,\n")
    message = '{"t": 1790000000, "m": {"x": 1.5, "y": 2, "z": "no"}, "fw": 3}'
    words = ["source", "test", str(tmp_path / "s.toml"), "-c", str(tmp_path / "yuzui.toml"), "--topic", "s/d"]
    (tmp_path / "m").write_text(message)
    tried = yuzui_here(*words, "--message", str(tmp_path / "m"))
    assert tried.returncode == 1
    assert "d-x" in tried.stdout
    assert "refused: unknown_point d-y" in tried.stdout
    assert "give it a row in the registry" in tried.stdout
    assert "refused: wrong_type" in tried.stdout
    assert "not mapped: fw" in tried.stdout
    (tmp_path / "hex").write_text("0x" + message.encode().hex(" "))
    as_hex = yuzui_here(*words, "--message", str(tmp_path / "hex"), "--hex", "--json")
    assert [one["point_id"] for one in orjson.loads(as_hex.stdout)["readings"]] == ["d-x"]
    elsewhere = yuzui_here(*words[:-1], "other/d", "--message", str(tmp_path / "m"))
    assert "the source's filters are s/{device}" in elsewhere.stdout
    (tmp_path / "s.toml").write_text('topics = ["s/{device}"]\nvalu = "m.*"\n')
    wrong = yuzui_here(*words, "--message", str(tmp_path / "m"))
    assert wrong.returncode == 2
    assert 's.toml: $.valu: unknown key (did you mean "value"?)' in wrong.stderr


def test_a_topic_is_asked_for_where_it_says_whose_the_readings_are(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('topics = ["s/{device}"]\nvalue = "m.*"\n')
    (tmp_path / "m").write_text("{}")
    tried = yuzui_here(
        "source", "test", str(tmp_path / "s.toml"), "--message", str(tmp_path / "m"), "-c", "/nowhere"
    )
    assert tried.returncode == 2
    assert "give --topic" in tried.stderr


def batch(point: list[int], late_s: list[float]) -> RawBatch:
    now = 1_790_000_000_000_000
    n = len(point)
    times = np.array([now - round(s * 1e6) for s in late_s], np.int64)
    return RawBatch(np.array(point, np.int32), times, np.full(n, now), np.zeros(n), np.zeros(n, np.uint8))


def test_lateness_clock_and_rate_of_each_source() -> None:
    points = point_table(4, source="a")
    points.sources = ["a", "b"]
    points.source[2:] = 1
    stats = SourceStats(points)
    stats.sample(0.0)
    stats.took(batch([0, 1, 2], [1.0, 3.0, -30.0]))
    stats.sample(1.0)
    a, b = stats.take({("b", "bad_json"): 3, ("unknown", "unknown_topic"): 1}, np.array([1, 0, 1, 1], bool))[
        :2
    ]
    assert (a["stored"], a["lateness_s"], a["skew_s"], a["online"], a["per_s"]) == (2, 2.0, 1.0, 0.5, 2.0)
    assert (b["stored"], b["received"], b["skew_s"], b["online"]) == (1, 4, -30.0, 1.0)
    stats.sample(61.0)
    stats.sample(122.0)
    assert stats.take({}, None)[0]["lateness_s"] is None


def test_counts_go_on_under_another_registry() -> None:
    stats = SourceStats(point_table(4, source="a"))
    stats.took(batch([0, 1], [0.0, 0.0]))
    stats.adopt(point_table(2, source="b"))
    stats.took(batch([0], [0.0]))
    assert stats.stored() == {"a": 2, "b": 1}


def test_a_message_of_a_thousand_levels_is_answered(tmp_path: Path) -> None:
    deep = b'{"a":' * 1000 + b"1" + b"}" * 1000
    assert guess(deep) is None
    (tmp_path / "deep.json").write_bytes(deep)
    (tmp_path / "park.toml").write_text(
        'topics = ["t"]\ndevice = "=d"\nvalue = "a.*"\ntime_from = "receive"\n'
    )
    done = yuzui_here("source", "test", str(tmp_path / "park.toml"), "--message", str(tmp_path / "deep.json"))
    assert done.returncode == 1
    assert "refused: too_deep" in done.stdout
