"""SL 651: frames of the standard, of a province's rules and of stations, and what becomes of everything odd.

Sources of frames, as facts: the examples of SL 651-2014 (stations 0012345678 and 0011223344), annex I of
Guangdong's rules for applying it (centre 10), the rules of Fujian's hydrological bureau of 2023 (station 1000000006).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingest.codecs.base import Parsed
from ingest.codecs.checksums import crc_modbus
from ingest.codecs.sl651 import OPEN_MAX, Sl651
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, MISSING
from tests.codec_trials import mangled, read

LINK = "7E7E01001234567812342F0008020003591011155111036BCA"
TEST = (
    "7E7E010012345678123430002B020003591011154947F1F1001234567848F0F0591011154920190000052619000005392300000127"
    "381211150320FA"
)
TEST_ANSWER = "7E7E00123456780112343080080200035910111549471B75D4"
UNIFORM = (
    "7E7E05001122334403E831004E020031170718110005F1F1001122334448F0F017071810050418000005392300000122000001220000028500010490"
    "00010490FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF0001049000010490037AC7"
)
UNIFORM_ANSWER = "7E7E00112233440503E83180080200311707181100051B291C"
TIMED = (
    "7E7E05001122334403E832002B020034170718110016F1F1001122334448F0F0170718110020190000402619000040392300010490"
    "3812109903A421"
)
TIMED_ANSWER = "7E7E00112233440503E83280080200341707181100161BE5D4"
ADDED = (
    "7E7E1000123456781234330038020002140612021500F1F1001234567850F0F01406120215F460000000000000000000000000261900002020"
    "190000101A190000103812120903 7C62"
)
HOUR = (
    "7E7E1000123456781234340057020003140612020000F1F1001234567848F0F01406120200F460000000000000000000000000F5C00AAA0AAA"
    "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF2619000000201900000 01A19000000391A0027303812129003DD4E"
)
FUJIAN_HOUR = (
    "7E7E0110000000060000340068022F7B221202131525F1F1100000000648F0F02212021220F460000000000000000000000000F0F02212021315"
    "2619003196F0F02212021220F55C0A2D0A2D0A2D0A2D0A2D0A2D0A2D0A2D0A2D0A2D0AEC0AECF0F0221202131539230002896020190000003812"
    "131603329C7E"
)
TEXT_BY_HAND = "7E7E0100123456781234350011020004591011155145F2F25120312E323334034602"
PICTURE = (
    "7E7E01001234567812343601031600D00225262728292A3435363738393A434445464748494A535455565758595A636465666768696A737475767778"
    "797A838485868788898A92939495969798999AA2A3A4A5A6A7A8A9AAB2B3B4B5B6B7B8B9BAC2C3C4C5C6C7C8C9CAD2D3D4D5D6D7D8D9DAE1E2E3E4E5"
    "E6E7E8E9EAF1F2F3F4F5F6F7F8F9FAFFC4001F0100030101010101010101010000000000000102030405060708090A0BFFC400B51100020102040403"
    "040705040400010277000102031104052131061241510761711322328108144291A1B1C109233352F0156272D10A162434E125F11718191A26272829"
    "2A35363738393A434445464748494A535455565758595A636465666768696A73741759D8"
)
SHANGHAI = ZoneInfo("Asia/Shanghai")


def codec(**more: Any) -> Sl651:
    """The codec of a source in a city elsewhere."""
    settings = SourceSettings.model_validate({"name": "water", "codec": "sl651", **more})
    return Sl651(settings, ZoneInfo(settings.time_zone or "UTC"))


def us(*parts: int) -> int:
    """µs of a wall clock in China."""
    return round(datetime(*parts, tzinfo=SHANGHAI).astimezone(UTC).timestamp() * 1e6)  # type: ignore[misc, arg-type]


def of(parsed: Parsed, quantity: str) -> list[tuple[int | None, float, int]]:
    """(time, value, flag) of one element."""
    return [
        (t, v, f)
        for (_, q), t, v, f in zip(parsed.keys, parsed.times, parsed.values, parsed.flags, strict=True)
        if q == quantity
    ]


def raw(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def frame(
    data: str, *, function: int = 0x32, sent: str = "260801090003", start: str = "02", end: str = "03"
) -> bytes:
    """A frame of station 0012345678 around what follows F1F1."""
    body = raw(f"0001{sent}F1F1001234567848{data}") if start == "02" else raw(data)
    made = raw(f"7E7E010012345678FFFF{function:02X}{len(body):04X}{start}") + body + raw(end)
    return made + crc_modbus(made).to_bytes(2, "big")


def refused(payload: bytes, **more: Any) -> str:
    """Why a whole message is refused."""
    with pytest.raises(Refused) as why:
        codec(**more).parse("", payload)
    return why.value.reason


def test_a_test_report_of_the_standard_and_its_answer() -> None:
    parsed = codec().parse("", raw(TEST))
    time = us(2059, 10, 11, 15, 49)
    assert {device for device, _ in parsed.keys} == {"0012345678"}
    assert of(parsed, "20") == [(time, 0.5, DEVICE_SILENT)]
    assert of(parsed, "26") == [(time, 0.5, DEVICE_SILENT)]
    assert of(parsed, "39") == [(time, 0.127, DEVICE_SILENT)]
    assert of(parsed, "38") == [(time, 11.15, DEVICE_SILENT)]
    assert parsed.answers == [raw(TEST_ANSWER)]


def test_a_timed_report_and_its_answer() -> None:
    parsed = codec().parse("", raw(TIMED))
    assert of(parsed, "39") == [(us(2017, 7, 18, 11, 0), 10.49, DEVICE_SILENT)]
    assert of(parsed, "38") == [(us(2017, 7, 18, 11, 0), 10.99, DEVICE_SILENT)]
    assert parsed.answers == [raw(TIMED_ANSWER)]
    assert codec(sl651={"answer": False}).parse("", raw(TIMED)).answers == []
    [eot] = codec(sl651={"online": False}).parse("", raw(TIMED)).answers
    assert eot[-3] == 0x04
    assert crc_modbus(eot[:-2]) == int.from_bytes(eot[-2:], "big")


def test_a_uniform_period_has_a_time_for_each_value_and_holes_where_it_says_so() -> None:
    parsed = codec().parse("", raw(UNIFORM))
    levels = of(parsed, "39")
    assert [time for time, _, _ in levels] == [us(2017, 7, 18, 10, 5) + 300_000_000 * n for n in range(12)]
    assert [None if math.isnan(v) else v for _, v, _ in levels] == [
        0.122, 0.122, 0.285, 10.49, 10.49, None, None, None, None, None, 10.49, 10.49,
    ]  # fmt: skip
    assert [flag for _, _, flag in levels] == [0] * 5 + [MISSING] * 5 + [0] * 2
    assert parsed.answers == [raw(UNIFORM_ANSWER)]
    # Another maker's ends with the voltage.
    with_voltage = frame("F0F02608010805 0418000010 2619000010000020000030 38121231", function=0x31)
    parsed = codec().parse("", with_voltage)
    assert [v for _, v, _ in of(parsed, "26")] == [1.0, 2.0, 3.0]
    assert [v for _, v, _ in of(parsed, "38")] == [] or of(parsed, "38")[0][1] == 12.31
    assert parsed.refusals == []


def test_an_hour_of_rain_and_level_whose_time_is_that_of_the_last_value() -> None:
    parsed = codec().parse("", raw(HOUR))
    rain, levels = of(parsed, "F4"), of(parsed, "F5")
    times = [us(2014, 6, 12, 1, 5) + 300_000_000 * n for n in range(12)]
    assert [time for time, _, _ in rain] == times
    assert [time for time, _, _ in levels] == times
    assert [value for _, value, _ in levels[:2]] == [27.3, 27.3]
    assert [flag for _, _, flag in levels[2:]] == [MISSING] * 10
    assert of(parsed, "39") == [(us(2014, 6, 12, 2, 0), 27.3, DEVICE_SILENT)]
    assert of(parsed, "1A") == [(us(2014, 6, 12, 2, 0), 0.0, DEVICE_SILENT)]
    first = codec(sl651={"series": "first"}).parse("", raw(HOUR))
    assert of(first, "F4")[0][0] == us(2014, 6, 12, 2, 0)
    assert len(codec().parse("", raw(ADDED))) == 16


def test_an_hour_whose_time_is_that_of_the_first_value_and_changes_in_between() -> None:
    parsed = codec().parse("", raw(FUJIAN_HOUR))
    assert [t for t, _, _ in of(parsed, "F4")] == [
        us(2022, 12, 2, 12, 20) + 300_000_000 * n for n in range(12)
    ]
    assert [v for _, v, _ in of(parsed, "F5")] == [26.05] * 10 + [27.96] * 2  # its definition says 5C, not C0
    assert of(parsed, "26") == [(us(2022, 12, 2, 13, 15), 319.6, DEVICE_SILENT)]
    assert of(parsed, "39") == [(us(2022, 12, 2, 13, 15), 28.96, DEVICE_SILENT)]
    assert parsed.refusals == []


def test_a_station_that_only_says_it_is_there_is_not_answered() -> None:
    parsed = codec().parse("", raw(LINK))
    assert (len(parsed), parsed.answers, parsed.refusals) == (0, [], [])


def test_texts_and_pictures_are_refused_and_stay_in_quarantine() -> None:
    assert refused(raw(TEXT_BY_HAND)) == "unsupported"
    assert refused(raw(PICTURE)) == "unsupported"
    mixed = codec().parse("", frame("F0F02608010900 392300001234 F2F241424344"))
    assert len(mixed) == 1
    assert [(r.reason, r.raw) for r in mixed.refusals] == [("unsupported", raw("F2F241424344"))]


def test_hexadecimal_text_is_read_too() -> None:
    assert len(codec().parse("", TIMED.encode())) == 4
    assert len(codec().parse("", TIMED.lower().encode())) == 4
    assert refused(TIMED.encode()[:-1]) == "bad_frame"
    assert refused(b"7E7Exx") == "bad_frame"


@pytest.mark.parametrize(
    ("element", "value", "flag"),
    [
        ("391AFF0123", -1.23, 0), ("3923FFFFFFFF", None, MISSING), ("0312FF05", -0.05, 0), ("031104", 0.4, None),
        ("45200000008A", 138.0, 0), ("FF14230000 1234", 1.234, 0), ("031000", None, None), ("0308A5", None, None),
    ],
)  # fmt: skip
def test_an_element_by_itself(element: str, value: float | None, flag: int | None) -> None:
    """Minus, nothing, status bits, an element of the maker's own, and what is no element (flag None)."""
    parsed = codec().parse("", frame(f"F0F02608010900 {element}"))
    if flag is None:
        assert len(parsed.refusals) == 1
        return
    [(_, found, said)] = zip(parsed.keys, parsed.values, parsed.flags, strict=True)
    assert said == flag
    assert math.isnan(found) if value is None else found == value


def test_a_frame_that_is_not_whole_not_right_or_not_ours() -> None:
    good = raw(TIMED)
    assert refused(good[:-1] + b"\0") == "bad_crc"
    assert refused(good[:20] + b"\x99" + good[21:]) == "bad_crc"
    assert refused(raw(TIMED_ANSWER)) == "bad_frame"
    assert refused(b"") == "bad_frame"
    assert refused(b"\x7e") == "bad_frame"
    for end in range(3, len(good)):
        parsed = codec().parse("", good[:end])
        assert (len(parsed), len(parsed.refusals)) == (0, 1)
    other = bytearray(frame("F0F02608010900 392300001234"))
    other[24] ^= 1
    other[-2:] = crc_modbus(bytes(other[:-2])).to_bytes(2, "big")
    assert refused(bytes(other)) == "identity_mismatch"


def test_a_report_in_packets_is_read_when_the_last_one_is_here() -> None:
    speaker = codec()
    body = raw("0007260801090003F1F1001234567848F0F02608010900392300001234261900001038121231")
    pieces = [body[:20], body[20:29], body[29:]]
    packets = [
        frame(f"0030{n + 1:02X}{piece.hex()}", start="16", end="03" if n == 2 else "17")
        for n, piece in enumerate(pieces)
    ]
    for packet in (packets[2], packets[0], packets[0], packets[2]):
        waiting = speaker.parse("", packet)
        assert (len(waiting), waiting.answers) == (0, [])
    whole = speaker.parse("", packets[1])
    assert of(whole, "39") == [(us(2026, 8, 1, 9, 0), 1.234, 0)]
    assert len(whole) == 3
    assert len(whole.answers) == 1
    assert whole.answers[0][14:22] == body[:8]
    assert speaker.parse("", packets[2]).answers == []
    assert refused(frame("003004" + "00" * 8, start="16")) == "bad_frame"
    small = codec(message_bytes_max=16)
    with pytest.raises(Refused, match="oversized"):
        small.parse("", frame("002001" + "00" * 30, start="16", end="17"))


def test_split_finds_frames_between_noise_and_inside_a_frame_that_lost_its_length() -> None:
    speaker = codec()
    one, two = raw(TIMED), raw(FUJIAN_HOUR)
    assert speaker.split(two + one + b"\x7e") == ([two[:-1], one], len(two + one))
    long = bytearray(one)
    long[11] = 0x0F
    for damaged in (bytes(long), one[:30], b"GET / HTTP/1.1\r\n\r\n"):
        frames, used = speaker.split(damaged + two + one)
        assert [f for f in frames if not isinstance(f, Refused)] == [two[:-1], one]
        assert used == len(damaged + two + one)
        assert sum(len(f.raw) for f in frames if isinstance(f, Refused)) >= len(damaged)


def test_another_password_is_refused_where_one_is_said() -> None:
    assert len(codec(sl651={"password": "03e8"}).parse("", raw(TIMED))) == 4
    assert refused(raw(TIMED), sl651={"password": "1234"}) == "not_allowed"


def test_noise_that_looks_like_many_beginnings_costs_no_more_than_its_length() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    speaker = codec()
    for noise in (b"\x7e" * 60_000, raw("7E7E0100123456781234320FFF02") * 300, dice.randbytes(60_000)):
        frames, used = speaker.split(noise)
        assert used <= len(noise)
        assert not any(isinstance(f, bytes) and not f for f in frames)


def test_whatever_stands_in_a_frame_with_the_right_checksum_is_read_or_refused() -> None:
    """The checksum keeps noise out, not a station that is wrong: what it may say is mangled behind it."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    speaker = codec()
    frames = [raw(text) for text in (TEST, UNIFORM, TIMED, HOUR, FUJIAN_HOUR[:-2], PICTURE)]
    became = Counter[str]()
    for _ in range(4000):
        whole = dice.choice(frames)
        body = mangled(whole[14:-3], dice)[:4095]
        head = whole[:11] + len(body).to_bytes(2, "big") + dice.choice((b"\x02", b"\x02", b"\x16"))
        made = head + body + b"\x03"
        found = read(speaker, "", made + crc_modbus(made).to_bytes(2, "big"))
        became[found.reason if isinstance(found, Refused) else "read"] += 1
    assert became["read"] > 1000
    assert became["bad_crc"] == 0
    assert len(became) > 3


def test_reports_that_are_never_finished_do_not_fill_memory() -> None:
    speaker = codec()
    for number in range(2 * OPEN_MAX):
        packet = bytearray(frame("003001" + "00" * 8, start="16", end="17"))
        packet[3:8] = bytes.fromhex(f"{number:010d}")
        packet[-2:] = crc_modbus(bytes(packet[:-2])).to_bytes(2, "big")
        assert len(speaker.parse("", bytes(packet))) == 0
    assert len(speaker._open) <= OPEN_MAX


def test_the_same_elements_of_a_station_are_the_same_list() -> None:
    speaker = codec()
    first, second = speaker.parse("", raw(TIMED)), speaker.parse("", raw(TIMED))
    assert first.keys is second.keys
    assert len(first.keys) == len(first.values) == 4
