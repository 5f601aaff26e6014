"""Masking: no telephone, identity number or address comes through, however it is written; what is none stays."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.codecs.masking import MASK, masked, somebodys_number

DIGITS = "0123456789"
FORMS = (
    DIGITS,
    "".join(chr(0xFF10 + d) for d in range(10)),  # full width
    "零一二三四五六七八九",
    "〇壹贰叁肆伍陆柒捌玖",
    "".join(chr(0x660 + d) for d in range(10)),  # Arabic
    "".join(chr(0x1D7CE + d) for d in range(10)),  # mathematical, beyond the basic plane
)
SEPARATORS = (
    "", "", "", "-", " ", " - ", ".", "\u2014", "\u3000", "\u00a0", "\u200b", "\u2060", "\u00b7", "(", ")", "\uff08",
    "\uff09", "/", "_", "\uff0d", "\u30fb", "\t",
)  # fmt: skip
WORDS = st.text(
    st.sampled_from("积水很深请派人来处理谢谢在门口车库旁边,。!?电话号码是转abcXYZ%\n"), max_size=12
)


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """A telephone or identity number, in digits 0-9."""

    def some(n: int) -> str:
        return "".join(draw(st.lists(st.sampled_from(DIGITS), min_size=n, max_size=n)))

    match draw(st.integers(0, 4)):
        case 0:
            return (
                draw(st.sampled_from(("", "86", "0086"))) + "1" + draw(st.sampled_from("3456789")) + some(9)
            )
        case 1:
            return (
                "0"
                + draw(st.sampled_from(("28", "10", "838", "755")))
                + draw(st.sampled_from("2345678"))
                + some(7)
            )
        case 2:
            return "510" + some(3) + "19" + some(2) + "0101" + some(4)
        case 3:
            return "19" + some(9)  # a mobile number that begins like a year
        case _:
            return draw(st.sampled_from("3456789")) + some(7)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str]:
    """(the digits, the number as a person wrote it)."""
    number, form = draw(numbers()), draw(st.sampled_from(FORMS))
    groups, at = [], 0
    while at < len(number):
        size = draw(st.integers(1, 6))
        groups.append("".join(form[int(d)] for d in number[at : at + size]))
        at += size
    text = groups[0]
    for group in groups[1:]:
        # A local number with a point in it cannot be told from a coordinate.
        between = SEPARATORS if len(number) > 8 else [s for s in SEPARATORS if s != "."]
        text += draw(st.sampled_from(between)) + group
    return number, draw(st.sampled_from(("", "+", "(", "tel:"))) + text


def digits_of(text: str) -> str:
    """All digits of a text in order, whatever their script."""
    chinese = {c: str(i % 10) for i, c in enumerate("零一二三四五六七八九〇壹贰叁肆伍陆柒捌玖")}
    return "".join(chinese.get(c) or str(unicodedata.digit(c, "")) for c in text)


@settings(max_examples=500, deadline=None)
@given(WORDS, written(), WORDS)
@example("", ("13800138000", "+86 138\u200b0013-8000"), "")
@example("a", ("13800138000", "0.13800138000"), "")
@example("", ("19536365746", "19536365746"), "")
def test_no_number_of_a_person_comes_through_the_strict_mask(
    before: str, one: tuple[str, str], after: str
) -> None:
    number, text = one
    found = masked(before + text + after, strict=True)
    assert number[-7:] not in digits_of(found)
    assert number not in digits_of(found)
    assert MASK in found
    assert masked(found, strict=True) == found


@settings(max_examples=200, deadline=None)
@given(
    WORDS,
    st.sampled_from(("3", "4", "5", "7", "8", "9")),
    st.text("0123456789", min_size=9, max_size=9),
    WORDS,
)
def test_a_mobile_number_does_not_come_through_the_plain_mask_either(
    before: str, second: str, rest: str, after: str
) -> None:
    number = f"1{second}{rest}"
    for text in (number, f"+86 {number[:3]}-{number[3:7]}-{number[7:]}", f"1501 {number}"):
        assert number not in digits_of(masked(f"{before}{text}{after}", strict=False))


@settings(max_examples=200, deadline=None)
@given(WORDS)
def test_text_without_a_number_is_the_same_text(text: str) -> None:
    assert masked(text, strict=True) == text


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "2026-07-01 08:30:15", "20260701", "20260701083015", "2026/7/1", "2026.07.01 8:30", "2026-07-01T08:30:15",
        "08:00-12:00", "08:00\u201412:00", "104.065735,30.657401", "1,234,567 元", "123456", "12345", "3栋2单元1501",
        "二〇二六年七月一日", "水深 0.35 米", "第 7 中学 110 报警", "", "@", "a@b", "51\u00b0 30\u00b4",
    ],
)  # fmt: skip
def test_dates_times_amounts_and_places_stay(text: str, strict: bool) -> None:
    assert masked(text, strict=strict) == text


@pytest.mark.parametrize(
    "text",
    ["wang@mail.example", "li.si+x@a.b.example", "zhao\uff20mail\uff0eexample"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_addresses_go(text: str, strict: bool) -> None:
    assert masked(f"写信给 {text}。", strict=strict).count(MASK) == 1
    assert "mail" not in masked(text, strict=strict)


def test_what_the_plain_mask_leaves_alone() -> None:
    """Codes of projects and tickets are numbers too; where nobody writes about persons they stay."""
    for text in ("P-5101000120260701", "87654321", "400-820-8820"):
        assert masked(text, strict=False) == text
        assert masked(text, strict=True) != text


@given(st.integers(10_000_000, 10**18))
def test_a_number_that_was_sent_as_a_number_is_seen(value: int) -> None:
    assert somebodys_number(value, strict=True)
    assert somebodys_number(float(value), strict=True)


@given(st.integers(13_000_000_000, 19_999_999_999))
def test_a_mobile_number_sent_as_a_number_is_always_seen(value: int) -> None:
    assert somebodys_number(value, strict=False)
    assert somebodys_number(float(value), strict=False)
