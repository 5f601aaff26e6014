"""CSV rows become readings, wide and long, as loggers of this world write them."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from ingest.codecs.base import Parsed
from ingest.decode.refused import Refused
from tests.codecs import T0, T0_S, codec_of, reasons, rows

ISO = "2026-09-21T22:13:20+08:00"
assert T0_S == 1_790_000_000


def read(text: str | bytes, **settings: Any) -> Parsed:
    raw = text if isinstance(text, bytes) else text.encode()
    return codec_of("csv", **{"device": "station", "time": "time", **settings}).parse("t", raw)


def test_wide_rows_with_a_header() -> None:
    text = f"time,station,level,rain\r\n{ISO},S1,1.5,0\r\n{ISO},S2,-2e1,.5\r\n"
    assert rows(read(text)) == [
        (("S1", "level"), T0, 1.5),
        (("S1", "rain"), T0, 0.0),
        (("S2", "level"), T0, -20.0),
        (("S2", "rain"), T0, 0.5),
    ]
    assert read(text, quantities={"rain": {}}).keys == [("S1", "rain"), ("S2", "rain")]
    assert read(text, csv={"ignore": ["r*"]}).keys == [("S1", "level"), ("S2", "level")]


def test_long_rows_by_column_numbers_quoting_and_a_decimal_comma() -> None:
    options = {"header": False, "delimiter": ";", "decimal": ",", "thousands": "."}
    text = f'"S 1";"level; cm";{T0_S};"1.234,5"\n"S 1";rain;{T0_S};7\n'
    parsed = read(text, device="1", quantity="2", time="3", value="4", time_unit="s", csv=options)
    assert rows(parsed) == [(("S 1", "level; cm"), T0, 1234.5), (("S 1", "rain"), T0, 7.0)]


def test_named_columns_dates_and_times_apart_a_city_zone_and_another_alphabet() -> None:
    parsed = read(
        "站1,2026/09/21,22:13:20,3.5,好\n".encode("gb18030"),
        device="站",
        value="水位",
        quantity="=level",
        flag="质量",
        flags={"好": 1},
        time_format="%Y/%m/%d %H:%M:%S",
        csv={"header": False, "columns": ["站", "日", "时", "水位", "质量"], "time_columns": ["日", "时"],
             "encoding": "gb18030"},
    )  # fmt: skip
    assert rows(parsed) == [(("站1", "level"), T0, 3.5)]
    assert parsed.flags == [1]


def test_an_empty_field_is_a_missing_value_or_none() -> None:
    text = f"station,time,a,b\nS1,{ISO},,1\n"
    parsed = read(text)
    assert math.isnan(parsed.values[0])
    assert parsed.flags == [9, 0]
    assert read(text, csv={"empty": "skip"}).keys == [("S1", "b")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"S9,{ISO},high", "wrong_type"),
        (f"S9,{ISO},nan", "wrong_type"),
        (f"S9,{ISO},inf", "wrong_type"),
        (f"S9,{ISO},1_000", "wrong_type"),
        (f"S9,{ISO},0x10", "wrong_type"),
        ("S9,soon,1", "bad_time"),
        ("S9,2026-09-21,1", "bad_time"),
        (f"S9,{ISO}", "wrong_shape"),
        (f"S9,{ISO},1,2", "wrong_shape"),
    ],
)
def test_one_bad_row_is_refused_and_the_others_stay(row: str, reason: str) -> None:
    good = [f"S{i},{ISO},{i}" for i in range(4)]
    parsed = read("\n".join(["station,time,level", *good[:2], row, *good[2:]]))
    assert reasons(parsed) == [reason]
    assert rows(parsed) == [((f"S{i}", "level"), T0, float(i)) for i in range(4)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "wrong_shape"),
        ("station,time,level\n", "wrong_shape"),
        ("a,b\n1,2\n", "wrong_shape"),
        ("station,time,x,x\nS,1,2,3\n", "wrong_shape"),
        ("station,time\nS,1\n", "no_value"),
        ('station,time,level\n"S', "bad_csv"),
        ('station,time,level\n"S"x,1,2', "bad_csv"),
        (b"station,time,level\n\xff\xfe,1,2", "bad_csv"),
        ("station,time,level\n" + "S,1,2\n" * 11, "too_many_readings"),
        (",".join(["c"] * 5000), "bad_csv"),
    ],
)
def test_a_message_that_is_no_table_is_refused_whole(text: str | bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text, readings_per_message_max=10)
    assert refused.value.reason == reason


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="both"):
        read("", csv={"decimal": ","})


def test_the_quick_way_and_the_careful_way_say_the_same() -> None:
    """Rows read by column are what they are field by field. Seed printed."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    fields = ["1", "-2.5", " 3 ", "4e2", "", "x", "1_0", "nan", "+.5", "5."]
    for _ in range(200):
        lines = [f"S{draw.randrange(3)},{ISO},{_pick(draw, fields)},{_pick(draw, fields)}" for _ in range(4)]
        text = "\n".join(["station,time,a,b", *lines])
        # A row too short sends all the careful way.
        quick, careful = read(text), read(text + "\nshort")
        assert reasons(careful) == [*reasons(quick), "wrong_shape"], text
        assert str(rows(quick)) == str(rows(careful)), text
        assert quick.flags == careful.flags


def _pick(draw: random.Random, fields: list[str]) -> str:
    return draw.choice(fields if draw.random() < 0.2 else fields[:4])
