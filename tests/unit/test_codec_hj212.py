"""HJ 212: frames of the standard and of devices in the field, and what becomes of everything odd.

Sources of frames, as facts: HJ 212-2017 annex A (its sample, 1C80) and annex C (the answer, C241); the rest are
frames of devices in the field, as public parsers keep them in their tests.
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
from ingest.codecs.checksums import crc_hj212
from ingest.codecs.hj212 import Hj212, framed
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT
from tests.codec_trials import mangled, read

SAMPLE = (
    b"##0101QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;"
    b"CP=&&RtdInterval=30&&1C80\r\n"
)
ANSWER = (
    b"##0087QN=20160801085000001;ST=91;CN=9014;PW=123456;MN=010000A8900016F000169DC0;Flag=4;CP=&&&&C241\r\n"
)
STACK_2005 = (
    b"##0328ST=31;CN=2011;PW=123456;MN=88888880000001;CP=&&DataTime=20171219115817;S01-Rtd=0.00,S01-Flag=D;"
    b"S02-Rtd=0.00,S02-Flag=D;S03-Rtd=0.00,S03-Flag=D;02-Rtd=0.00,02-Flag=D;S05-Rtd=0.00,S05-Flag=D;03-Rtd=0.00,"
    b"03-Flag=D;01-ZsRtd=0.00;S08-Rtd=0.000000,S08-Flag=D;B02-Rtd=0.00,B02-Flag=D;01-Rtd=0.00,01-Flag=D;"
    b"02-ZsRtd=0.00;03-ZsRtd=0.00&&B681\r\n"
)
STACK_2017 = (
    b"##0494QN=20210521110212000;ST=31;CN=2011;PW=123456;MN=411420sibo0606;Flag=4;CP=&&DataTime=20210521110202;"
    b"a01012-Rtd=32.42,a01012-ZsRtd=32.42,a01012-Flag=N;a05002-Rtd=1.45,a05002-ZsRtd=1.45,a05002-Flag=N;"
    b"a01011-Rtd=0.54,a01011-ZsRtd=0.54,a01011-Flag=N;a01013-Rtd=103.79,a01013-ZsRtd=103.79,a01013-Flag=N;"
    b"a24087-Rtd=39.00,a24087-ZsRtd=39.00,a24087-Flag=N;a01014-Rtd=2.53,a01014-ZsRtd=2.53,a01014-Flag=N;"
    b"a24088-Rtd=37.55,a24088-ZsRtd=37.55,a24088-Flag=N;a00000-Rtd=3434,a00000-ZsRtd=3434,a00000-Flag=N&&8701\r\n"
)
PART_1_OF_2 = (
    b"##0931QN=20201029122005355;ST=31;CN=2051;PW=123456;MN=WJTHGY91320509703697203A;Flag=7;PNUM=2;PNO=1;CP=&&"
    b"DataTime=20201029121000;a00000-Min=0.000,a00000-Max=0.000,a00000-Avg=0.000,a00000-Cou=0.000,a00000-Flag=B;"
    b"a01011-Min=0.000,a01011-Max=0.000,a01011-Avg=0.000,a01011-Cou=0.000,a01011-Flag=B;a01012-Min=0.000,a01012-Max=0.000,"
    b"a01012-Avg=0.000,a01012-Cou=0.000,a01012-Flag=B;a01013-Min=0.000,a01013-Max=0.000,a01013-Avg=0.000,a01013-Cou=0.000,"
    b"a01013-Flag=B;a01014-Min=0.000,a01014-Max=0.000,a01014-Avg=0.000,a01014-Cou=0.000,a01014-Flag=B;a19001-Min=0.000,"
    b"a19001-Max=0.000,a19001-Avg=0.000,a19001-Cou=0.000,a19001-Flag=B;a21002-Min=0.000,a21002-Max=0.000,a21002-Avg=0.000,"
    b"a21002-Cou=0.000,a21002-ZsMin=0.000,a21002-ZsMax=0.000,a21002-ZsAvg=0.000,a21002-ZsCou=0.000,a21002-Flag=B;"
    b"a21005-Min=0.000,a21005-Max=0.000,a21005-Avg=0.000,a21005-Cou=0.000,a21005-ZsMin=0.000,a21005-ZsMax=0.000,"
    b"a21005-ZsAvg=0.000,a21005-ZsCou=0.000,a21005-Flag=B&&AE41\r\n"
)
SHANGHAI = ZoneInfo("Asia/Shanghai")


def codec(zone: str = "UTC", **more: Any) -> Hj212:
    """The codec of a source; the city's zone is not China's, to see that it is not used."""
    settings = SourceSettings.model_validate({"name": "epb", "codec": "hj212", **more})
    return Hj212(settings, ZoneInfo(settings.time_zone or zone))


def us(*parts: int, zone: ZoneInfo = SHANGHAI) -> int:
    """µs of a wall clock."""
    return round(datetime(*parts, tzinfo=zone).astimezone(UTC).timestamp() * 1e6)  # type: ignore[misc, arg-type]


def report(text: str, *, cn: int = 2011, flag: int = 4, more: str = "", mn: str = "M1") -> bytes:
    """A frame around what stands in CP."""
    head = f"QN=20260801085857223;ST=22;CN={cn};PW=123456;MN={mn};Flag={flag};{more}"
    return framed(f"{head}CP=&&{text}&&".encode())


def rows(parsed: Parsed) -> dict[str, tuple[float, int]]:
    """Quantity to value and flag."""
    return {q: (v, f) for (_, q), v, f in zip(parsed.keys, parsed.values, parsed.flags, strict=True)}


def refused(payload: bytes, **more: Any) -> str:
    """Why a whole message is refused."""
    with pytest.raises(Refused) as why:
        codec(**more).parse("", payload)
    return why.value.reason


def test_the_checksum_is_the_standards_own_and_not_modbus() -> None:
    def plainly(segment: bytes) -> int:
        register = 0xFFFF
        for byte in segment:
            register = register >> 8 ^ byte
            for _ in range(8):
                register = register >> 1 ^ (0xA001 if register & 1 else 0)
        return register

    assert crc_hj212(SAMPLE[6:107]) == 0x1C80
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for length in (*range(300), 511, 512, 513, 1024, 1025, 2049, 4097, 9999):
        segment = dice.randbytes(length)
        assert crc_hj212(segment) == plainly(segment), length


def test_the_standards_sample_is_a_command_without_readings() -> None:
    parsed = codec().parse("", SAMPLE)
    assert (len(parsed), parsed.refusals, parsed.answers) == (0, [], [])


def test_a_stack_of_the_2017_standard() -> None:
    parsed = codec().parse("", STACK_2017)
    assert len(parsed) == 16
    assert {device for device, _ in parsed.keys} == {"411420sibo0606"}
    assert rows(parsed)["a01013-Rtd"] == (103.79, GOOD)
    assert rows(parsed)["a00000-ZsRtd"] == (3434, GOOD)
    assert set(parsed.times) == {us(2021, 5, 21, 11, 2, 2)}
    assert parsed.answers == []  # Flag 4: it asks for none


def test_a_stack_of_the_2005_standard_without_qn_and_flag() -> None:
    parsed = codec().parse("", STACK_2005)
    assert len(parsed) == 12
    assert rows(parsed)["S01-Rtd"] == (0.0, FAIL)
    assert rows(parsed)["01-ZsRtd"] == (0.0, FAIL)  # the flag of factor 01 stands in another group
    assert parsed.answers == []


def test_minute_averages_in_parts_and_their_answer() -> None:
    speaker = codec()
    parsed = speaker.parse("", PART_1_OF_2)
    assert len(parsed) == 40
    assert rows(parsed)["a21005-ZsAvg-minute"] == (0.0, FAIL)
    answer = framed(
        b"QN=20201029122005355;ST=91;CN=9014;PW=123456;MN=WJTHGY91320509703697203A;Flag=4;CP=&&&&"
    )
    assert parsed.answers == [answer]
    # The second part need not say the time again.
    second = (
        b"QN=20201029122005355;ST=31;CN=2051;PW=123456;MN=WJTHGY91320509703697203A;Flag=7;PNUM=2;PNO=2;"
        b"CP=&&a34013-Avg=1.5,a34013-Flag=N&&"
    )
    parsed = speaker.parse("", framed(second))
    assert parsed.times == [us(2020, 10, 29, 12, 10)]
    assert codec().parse("", framed(second)).times == [None]  # nobody said it


def test_the_answer_is_the_one_of_the_standard() -> None:
    frame = framed(
        b"QN=20160801085000001;ST=32;CN=2011;PW=123456;MN=010000A8900016F000169DC0;Flag=5;"
        b"CP=&&DataTime=20160801084000;w00000-Rtd=1.1,w00000-Flag=N&&"
    )
    assert codec().parse("", frame).answers == [ANSWER]
    assert codec(hj212={"answer": False}).parse("", frame).answers == []


@pytest.mark.parametrize(
    ("command", "flag", "answer"),
    [
        (2011, 5, 9014),
        (2031, 9, 9014),
        (2081, 5, 9014),
        (9015, 9, 9013),
        (1013, 5, 9013),
        (9012, 5, 0),
        (2061, 8, 0),
    ],
)
def test_each_upload_is_answered_as_its_kind_is_and_in_its_own_version(
    command: int, flag: int, answer: int
) -> None:
    answers = codec().parse("", report("DataTime=20260801085857;a1-Rtd=1", cn=command, flag=flag)).answers
    if not answer:
        assert answers == []
        return
    head = f"QN=20260801085857223;ST=91;CN={answer};PW=123456;MN=M1;Flag={flag & 0xFC};CP=&&&&"
    assert answers == [framed(head.encode())]


def test_a_checksum_in_small_letters_is_one_and_a_wrong_one_is_refused_and_not_answered() -> None:
    assert len(codec().parse("", STACK_2017.replace(b"8701", b"8701".lower()))) == 16
    frame = report("DataTime=20260801085857;a1-Rtd=1", flag=5)
    small = frame[:-6] + frame[-6:].lower()
    assert len(codec().parse("", small)) == 1
    assert refused(frame[:-3] + bytes([frame[-3] ^ 1]) + b"\r\n") == "bad_crc"
    assert refused(frame.replace(b"a1", b"b1")) == "bad_crc"
    assert refused(frame[:-6] + b" " + frame[-5:]) == "bad_crc"


def test_every_flag_has_its_meaning_and_what_must_not_teach_does_not() -> None:
    letters = ["N", "F", "M", "S", "D", "C", "T", "B", "X"]
    text = ";".join(f"a{i}-Rtd=1,a{i}-Flag={letter}" for i, letter in enumerate(letters))
    parsed = codec().parse("", report(f"DataTime=20260801085857;{text}"))
    wanted = [GOOD, FAIL, SUSPECT, NOT_EVALUATED, FAIL, SUSPECT, NOT_EVALUATED, FAIL, SUSPECT]
    assert parsed.flags == wanted
    parsed = codec(flags={"T": 3}).parse("", report(f"DataTime=20260801085857;{text}"))
    assert parsed.flags[6] == 3
    careful = codec().parse("", report(f"DataTime=20260801085857;{text};z-Rtd=1e3,z-Flag=T"))
    assert careful.flags == [*wanted, NOT_EVALUATED]


def test_a_reading_without_a_value_is_missing_and_one_that_is_no_number_is_refused_alone() -> None:
    text = "a1-Rtd=,a1-Flag=N;a2-Rtd=1.5;a3-Rtd=abc,a3-Flag=N;a4-Rtd;a5-Rtd=,a5-SampleTime=20260801085800;a6-Rtd=-.5"
    parsed = codec().parse("", report(f"DataTime=20260801085857;{text}"))
    found = rows(parsed)
    assert list(found) == ["a1-Rtd", "a2-Rtd", "a5-Rtd", "a6-Rtd"]
    assert math.isnan(found["a1-Rtd"][0])
    assert (found["a1-Rtd"][1], found["a5-Rtd"][1]) == (GOOD, MISSING)
    assert found["a2-Rtd"] == (1.5, DEVICE_SILENT)
    assert found["a6-Rtd"] == (-0.5, DEVICE_SILENT)
    assert [(r.reason, r.raw) for r in parsed.refusals] == [
        ("wrong_type", b"a3-Rtd=abc"),
        ("wrong_type", b"a4-Rtd"),
    ]


@pytest.mark.parametrize(
    "value", ["nan", "inf", "1_0", "1e999", "null", "true", "[1]", "١", "0x10", "--1", "1.2.3"]
)
def test_what_python_or_json_would_take_for_a_number_and_the_standard_does_not(value: str) -> None:
    parsed = codec().parse("", report(f"DataTime=20260801085857;a1-Rtd={value},a1-Flag=N;a2-Rtd=2,a2-Flag=N"))
    assert rows(parsed)["a2-Rtd"] == (2.0, GOOD)
    assert value == "1e999" or len(parsed.refusals) == 1


def test_one_reading_alone_without_a_value_is_missing_too() -> None:
    """The array of no numbers is the one of no readings, and not what the report says."""
    speaker = codec()
    for _ in range(10):
        frame = report("DataTime=20260801085857;a01001-Rtd=,a01001-Flag=N")
        assert speaker.common(frame) is None
        (value, flag) = rows(speaker.parse("", frame))["a01001-Rtd"]
        assert (math.isnan(value), flag) == (True, GOOD)
        speaker.parse("", report("DataTime=20260801085857;a01001-Rtd=1,a01001-Flag=N"))


def test_texts_between_slashes_are_no_fields() -> None:
    text = "DataTime=20260801085857;PolId=w01018;i11001-Info=//a-Rtd=7;,b-Rtd=8//;w01018-Rtd=9"
    assert rows(codec().parse("", report(text))) == {"w01018-Rtd": (9.0, DEVICE_SILENT)}


def test_the_point_is_the_factor_where_that_is_wanted() -> None:
    text = "DataTime=20260801085857;a1-Min=1,a1-Avg=2,a1-Max=3,a1-Flag=N;a1-Rtd=4"
    only = codec(hj212={"quantity": "factor"})
    assert list(rows(only.parse("", report(text, cn=2061)))) == ["a1-hour", "a1-hour"][:1]
    assert rows(only.parse("", report("DataTime=20260801085857;a1-Rtd=4,a1-Flag=N"))) == {"a1": (4.0, GOOD)}
    some = codec(hj212={"suffixes": ["Avg"], "spans": ["hour", "day"]})
    assert rows(some.parse("", report(text, cn=2061))) == {"a1-Avg-hour": (2.0, GOOD)}
    assert rows(some.parse("", report(text, cn=2031))) == {"a1-Avg-day": (2.0, GOOD)}
    left_out = some.parse("", report(text, cn=2051, flag=5))
    assert (len(left_out), len(left_out.answers)) == (0, 1)


def test_a_time_is_read_in_the_zone_of_the_source() -> None:
    frame = report("DataTime=20260801085857;a1-Rtd=1")
    assert codec().parse("", frame).times == [us(2026, 8, 1, 8, 58, 57)]
    utc = us(2026, 8, 1, 8, 58, 57, zone=ZoneInfo("UTC"))
    assert codec(time_zone="UTC").parse("", frame).times == [utc]
    for time in ("20260230000000", "2026080108585", "20260801085860", "202608010858ab", ""):
        assert refused(report(f"DataTime={time};a1-Rtd=1")) == "bad_time"
    assert codec().parse("", report("a1-Rtd=1")).times == [None]


def test_several_frames_in_one_message_and_noise_between_them() -> None:
    parsed = codec().parse("", b"junk" + STACK_2005 + b"\r\n" + STACK_2017 + STACK_2017[:50])
    assert len(parsed) == 28
    assert [(r.reason, r.raw) for r in parsed.refusals] == [
        ("bad_frame", b"junk"),
        ("bad_frame", STACK_2017[:50]),
    ]
    for nothing in (b"", b"##", b"##0010QN=1234567"):
        assert refused(nothing) == "bad_frame"
    assert [r.reason for r in codec().parse("", b"{}").refusals] == ["bad_frame"]


def test_a_length_that_lost_its_meaning_costs_one_frame_and_not_the_next() -> None:
    speaker = codec()
    for broken in (
        STACK_2017.replace(b"##0494", b"##0094"),
        STACK_2017.replace(b"##0494", b"##9494"),
        STACK_2017[:200],
    ):
        frames, used = speaker.split(broken + STACK_2005 + SAMPLE)
        good = [frame for frame in frames if not isinstance(frame, Refused)]
        assert good == [STACK_2005[:-2], SAMPLE[:-2]]
        assert used == len(broken + STACK_2005 + SAMPLE)
        assert b"".join(f.raw for f in frames if isinstance(f, Refused)).strip() == broken.strip()


def test_split_keeps_what_may_become_a_frame_and_nothing_else() -> None:
    speaker = codec()
    assert speaker.split(b"noise##04") == ([], 5) or speaker.split(b"noise##04")[1] == 5
    assert speaker.split(SAMPLE[:60]) == ([], 0)
    assert speaker.split(b"\r\n\r\n") == ([], 4)
    assert speaker.split(b"\r\n#") == ([], 2)
    frames, used = speaker.split(b"#" * 100_000)
    assert used >= 99_998
    assert len(frames) == 1


def test_another_password_is_refused_where_one_is_said() -> None:
    frame = report("DataTime=20260801085857;a1-Rtd=1")
    assert len(codec(hj212={"password": "123456"}).parse("", frame)) == 1
    assert refused(frame, hj212={"password": "654321"}) == "not_allowed"


def test_what_a_peer_invents_does_not_fill_memory() -> None:
    from ingest.codecs import hj212

    speaker = codec()
    speaker._heads._entries_max = speaker._shapes._entries_max = 100
    for n in range(1000):
        speaker.parse("", report(f"DataTime=20260801085857;a{n}-Rtd=1,a{n}-Flag=N", mn=f"M{n}"))
    assert max(len(speaker._heads), len(speaker._shapes)) <= 100
    assert hj212.KEPT_MAX <= 100_000


def test_whatever_stands_in_a_frame_with_the_right_checksum_is_read_or_refused() -> None:
    """The checksum keeps noise out, not a device that is wrong: what it may say is mangled behind it."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    speaker = codec()
    bodies = [frame[6:-6] for frame in (STACK_2005, STACK_2017, PART_1_OF_2, SAMPLE)]
    became = Counter[str]()
    for _ in range(4000):
        segment = mangled(dice.choice(bodies), dice)[:9999]
        made = read(speaker, "", framed(segment))
        became[made.reason if isinstance(made, Refused) else "read"] += 1
    assert became["read"] > 1000
    assert became["bad_frame"] > 100
    assert became["bad_crc"] == 0
