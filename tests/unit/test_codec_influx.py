"""InfluxDB line protocol: what lines say, and what is no line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from influxdb_client import Point

from ingest.codecs.base import Parsed
from ingest.decode.refused import Refused
from tests.codecs import T0, T0_S, codec_of, reasons, rows

NS = T0 * 1000


def read(text: str | bytes, **influx: Any) -> Parsed:
    raw = text if isinstance(text, bytes) else text.encode()
    return codec_of("influx", influx={"device": "{tag:station}", **influx}).parse("t", raw)


def test_fields_of_every_type_and_several_lines() -> None:
    text = f"""# a comment
weather,station=S1,area=jinniu temp=21.5,count=3i,total=18446744073709551615u,wet=t,dry=False {NS}

weather,station=S\\ 2 temp=-1e-3
"""
    assert rows(read(text)) == [
        (("S1", "dry"), T0, 0.0),
        (("S1", "wet"), T0, 1.0),
        (("S1", "total"), T0, 18446744073709551615.0),
        (("S1", "count"), T0, 3.0),
        (("S1", "temp"), T0, 21.5),
        (("S 2", "temp"), None, -0.001),
    ] or sorted(rows(read(text))[:5]) == sorted(
        [
            (("S1", "dry"), T0, 0.0),
            (("S1", "wet"), T0, 1.0),
            (("S1", "total"), T0, 18446744073709551615.0),
            (("S1", "count"), T0, 3.0),
            (("S1", "temp"), T0, 21.5),
        ]
    )


@pytest.mark.parametrize(
    ("precision", "time"),
    [("ns", NS + 999), ("us", T0), ("ms", T0 // 1000), ("s", T0_S), ("m", T0_S // 60), ("h", T0_S // 3600)],
)
def test_the_unit_of_timestamps_is_the_sources(precision: str, time: int) -> None:
    unit_s = {"m": 60, "h": 3600}.get(precision, 1)
    assert read(f"w,station=S f=1 {time}", precision=precision).times == [T0_S // unit_s * unit_s * 1_000_000]


def test_templates_and_what_a_line_lacks() -> None:
    line = f"weather,station=S1,probe=3 temp=1 {NS}"
    assert read(line, device="{tag:station}/{tag:probe}", quantity="{measurement}.{field}").keys == [
        ("S1/3", "weather.temp")
    ]
    assert read(line, device="{series}").keys == [("weather,station=S1,probe=3", "temp")]
    assert reasons(read(line, device="{tag:other}")) == ["no_id"]
    with pytest.raises(ValueError, match="none of"):
        read(line, device="{host}")


def test_texts_are_refused_by_field_unless_the_source_ignores_them() -> None:
    line = f'w,station=S1 state="a, b=\\"c\\"\nd",temp=2 {NS}'
    parsed = read(line)
    assert reasons(parsed) == ["wrong_type"]
    assert rows(parsed) == [(("S1", "temp"), T0, 2.0)]
    assert not read(line, ignore=["state"]).refusals


@pytest.mark.parametrize(
    "line",
    ["w", "w f=", "w f=nan", "w f=inf", "w f=1e999", "w f=1 2 3", "w f=1 soon", "w,a= f=1", "w f=0x1", 'w f="x',
     "w f=9223372036854775808i", "w f=1,f=2", 'w f=1,f="=",f=3', "w f=1 9999999999999999999999", "\0 f=1"],
)  # fmt: skip
def test_one_bad_line_is_refused_and_the_others_stay(line: str) -> None:
    parsed = read(f"w,station=S1 f=1 {NS}\n{line}\n".encode())
    assert reasons(parsed) in (["bad_line"], ["no_id"], ["wrong_type", "bad_line"], ["bad_time"])
    assert rows(parsed)[0] == (("S1", "f"), T0, 1.0)
    assert len(parsed) == 1


@pytest.mark.parametrize(
    ("raw", "reason"), [(b"", "wrong_shape"), (b"\n# x\n", "wrong_shape"), (b"\xff", "bad_line")]
)
def test_a_message_without_a_line_is_refused_whole(raw: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read(raw)
    assert refused.value.reason == reason


words = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\\\0", exclude_categories=("Cc",)), min_size=1
)
# A backslash before what it may escape is itself, so the client's escapes are not one to one there.

numbers = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(
    station=words,
    fields=st.dictionaries(
        words, numbers | st.integers(-(2**63), 2**63 - 1) | st.booleans(),
        min_size=1, max_size=4,
    ),
    note=st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), max_size=9),
)  # fmt: skip
def test_whatever_the_client_library_writes_is_read(station: str, fields: dict[str, Any], note: str) -> None:
    point = Point("weather").tag("station", station)
    for name, value in fields.items():
        point = point.field(name, value)
    line = point.field("note!", note).time(NS).to_line_protocol()
    parsed = read(line, ignore=["note!"])
    assert not parsed.refusals, line
    assert {quantity: value for (_, quantity), _, value in rows(parsed)} == {
        name: float(value) for name, value in fields.items()
    }
    assert {key[0] for key in parsed.keys} == {station}
    assert set(parsed.times) == {T0}
