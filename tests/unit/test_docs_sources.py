"""docs/sources.md says what is so: every key, every path it shows, the reasons it names."""

from __future__ import annotations

import re
import tomllib
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from ingest.codecs.json_mapping import JsonMapping
from ingest.decode.reasons import REASONS
from ingest.sourcesettings import DeviceSettings, QuantitySettings, SourceSettings
from ingest.sourcestats import SourceStats
from tests.engines import ROOT
from tests.tables import point_table

PAGE = (ROOT / "docs" / "sources.md").read_text("utf-8")
MAPPINGS = re.findall(r"^\| `(\{\".*\})` \| (.*) \|$", PAGE, re.MULTILINE)
EXPECTED = [
    [("A", "", 2)],
    [("A", "pm25", 3), ("A", "o3", 4)],
    [("A", "pm25", 3)],
    [("A", "pm25", 3)],
    [("A", "", 2)],
    [("k1", "temp", 4)],
    [("A", "", 2.5), ("A", "", 2.6)],
    [("A", "pm25", 3), ("A", "o3", 4)],
]


def keys_said(text: str) -> dict[str, Any]:
    """The `key = value` pairs of a cell."""
    said: dict[str, Any] = {}
    for one in re.findall(r"`(\w+ = [^`]+)`", text):
        said |= tomllib.loads(one)
    return said


@pytest.mark.parametrize(
    ("row", "expected"), list(zip(MAPPINGS, EXPECTED, strict=True)), ids=range(len(EXPECTED))
)
def test_a_mapping_of_the_page_reads_its_message(
    row: tuple[str, str], expected: list[tuple[str, str, float]]
) -> None:
    message, cell = row
    keys: dict[str, Any] = {"device": "dev" if '"dev"' in message else "id", **keys_said(cell)}
    if '"t":' in message and "time" not in keys:
        keys["time"] = "t"
    if keys["value"] == "*":
        keys["quantities"] = {"pm25": {}, "o3": {}}
    codec = JsonMapping(SourceSettings.model_validate({"name": "s", **keys}), ZoneInfo("UTC"))
    parsed = codec.parse("t", orjson.dumps(orjson.loads(message)))
    assert [(r.reason, r.detail) for r in parsed.refusals] == []
    assert [(*key, value) for key, value in zip(parsed.keys, parsed.values, strict=True)] == expected


def test_every_key_of_a_source_stands_on_the_page() -> None:
    names = [info.alias or name for m in (SourceSettings, QuantitySettings, DeviceSettings)
             for name, info in m.model_fields.items()]  # fmt: skip
    codec_tables = {"hj212", "sl651", "senml", "csv", "influx", "sparkplug", "tcp"}
    assert [name for name in names if f"`{name}" not in PAGE and name not in codec_tables] == []


def test_reasons_and_numbers_of_the_page_are_those_of_the_code() -> None:
    for reason in ("identity_mismatch", "unknown_point", "rate_limited", "not_allowed", "oversized"):
        assert f"`{reason}`" in PAGE
        assert reason in REASONS
    row = SourceStats(point_table()).take({("flood", "bad_json"): 2}, None)[0]
    assert (row["received"], row["quarantined"], row["online"]) == (2, {"bad_json": 2}, None)
    assert SourceSettings(name="s").quarantine_bytes_max == 256 << 20
