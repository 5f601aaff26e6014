"""HJ 212's short way: what it reads is what the longer ways read, byte for byte, and it takes nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ingest.codecs import hj212_layout
from ingest.codecs.base import Parsed
from ingest.codecs.hj212 import Head, Hj212, Shape, framed
from ingest.config import Config
from ingest.decode.messages import Chunk, Messages
from ingest.decode.refused import Refused
from ingest.routes import Routes
from ingest.sourcesettings import SourceSettings
from tests.codec_trials import mangled, read
from tests.tables import point_table

NOW_US = 1_785_574_800_000_000
"""2026-08-01 17:00 in Shanghai."""
FACTORS = ("a00000", "a00001", "w01018", "a1.b", "a+", "")
PARTS = ("-Rtd", "-Avg", "-Min", "-Cou", "-ZsRtd", "-SampleTime", "-EFlag", "-Info", "-Flag")
NUMBERS = (
    "1",
    "12.34",
    "-0.5",
    "0",
    "-0",
    "007",
    "1.",
    ".5",
    "",
    "-",
    "1-2",
    "1e3",
    " 1",
    "9" * 20,
    "9" * 400,
    "x",
)


class Careful(Hj212):
    """Field by field, whatever it is."""

    def _shape(self, head: Head, separators: bytes, names: list[bytes]) -> Shape | None:
        return None


def settings(**more: Any) -> SourceSettings:
    return SourceSettings.model_validate({"name": "flood", "codec": "hj212", **more})


def said(parsed: Parsed) -> tuple[object, ...]:
    """Everything a message came to."""
    values = [(type(v), repr(v)) if v != v or not v else float(v) for v in parsed.values]
    return parsed.keys, parsed.times, values, parsed.flags, parsed.refusals, parsed.answers, parsed.events


class Device:
    """Sends reports of one list of names; its numbers change, and now and then something else."""

    def __init__(self, dice: random.Random, mn: str) -> None:
        self._dice, self._mn = dice, mn
        self._cn = dice.choice((2011, 2051, 2061, 9021))
        self._flag = dice.choice((4, 5, 5, 7))
        self._qn = dice.random() < 0.8
        names = [
            factor + part
            for factor in dice.sample(FACTORS, dice.randint(1, 4))
            for part in (*dice.sample(PARTS[:-1], dice.randint(1, 4)), "-Flag")[: dice.randint(2, 5)]
        ]
        self._names = [(name, dice.choice(";,")) for name in names]
        if dice.random() < 0.2:
            self._names.insert(dice.randrange(len(names)), self._names[0])

    def segment(self) -> bytes:
        dice = self._dice
        odd = dice.random() < 0.2
        words = []
        for name, separator in self._names:
            value = "N" if name.endswith("Flag") else f"{dice.uniform(-99, 999):.{dice.randint(0, 3)}f}"
            if odd and dice.random() < 0.3:
                value = dice.choice("NDTB ") if name.endswith("Flag") else dice.choice(NUMBERS)
            words.append(f"{name}={value}{separator}")
        stamp = f"202608011{dice.randint(5, 7)}{dice.randint(0, 59):02}00" + dice.choice(
            ("", "", "", "000", "000", "1")
        )
        qn = f"QN=20260801{dice.randrange(10**9):09};" if self._qn else ""
        front = f"{qn}ST=22;CN={self._cn};PW=1;MN={self._mn};Flag={self._flag};"
        return f"{front}CP=&&DataTime={stamp};{''.join(words)[:-1]}&&".encode()


def frames(dice: random.Random, devices: int, reports: int) -> Iterator[bytes]:
    """What devices say in turn: right frames, wrong ones, and wrong ones with the right checksum."""
    all_of_them = [Device(dice, f"M{n}") for n in range(devices)]
    for _ in range(reports):
        for device in all_of_them:
            segment = device.segment()
            if dice.random() < 0.2:
                segment = mangled(segment, dice)[:9999]
            frame = framed(segment)
            if dice.random() < 0.1:
                frame = frame[:-6] + frame[-6:-2].lower() + dice.choice((b"", b"\r\n", b"\n"))
            yield mangled(frame, dice) if dice.random() < 0.1 else frame


@pytest.mark.parametrize(
    "more", [{}, {"hj212": {"suffixes": ["Rtd", "Avg"]}}, {"hj212": {"quantity": "factor"}}]
)
def test_the_short_way_reads_what_the_longer_ways_read(more: dict[str, Any]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    zone = ZoneInfo("Asia/Shanghai")
    quick, whole, careful = (made(settings(**more), zone) for made in (Hj212, Hj212, Careful))
    became = Counter[str]()
    for frame in frames(dice, 50, 60):
        common = quick.common(frame)
        by_shape, by_field = read(whole, "", frame), read(careful, "", frame)
        read(quick, "", frame)
        if isinstance(by_field, Refused) or isinstance(by_shape, Refused):
            assert type(by_field) is type(by_shape)
            assert common is None
            became["refused"] += 1
            continue
        assert not by_shape.refusals or common is None
        if common is None:
            became["longer"] += 1
            continue
        n = len(common.keys)
        flags = list(common.flags) or [0] * n
        answers = [common.answer] if common.answer else []
        made = Parsed(common.keys, [common.time_us] * n, common.values, flags, answers=answers)
        assert said(made) == said(by_shape), frame
        numbers = [
            (k, t, float(v), f) for k, t, v, f in zip(made.keys, made.times, made.values, flags, strict=True)
        ]
        slowly = zip(by_field.keys, by_field.times, by_field.values, by_field.flags, strict=True)
        assert numbers == [*slowly], frame
        assert by_field.answers == answers
        became["short"] += 1
    assert became["short"] > 200, became
    assert became["longer"] > 300, became
    assert became["refused"] > 100, became


def test_the_engine_stores_refuses_and_answers_the_same_with_and_without_it() -> None:
    """Units, codes for "no value", unknown points and a time window, by a port of its own and over MQTT."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    sent = list(frames(random.Random(seed), 40, 40))
    own = settings(
        topics=["epb/#"],
        missing_values=[0],
        quantities={"a00000-Rtd": {"factor": 0.1, "missing": [1]}, "a00001-Rtd-minute": {"offset": 5}},
        age_s_max=3_600,
        time_zone="Asia/Shanghai",
    )
    quantities = [
        f"{factor}{part}{tail}"
        for factor in FACTORS[:3]
        for part in PARTS[:5]
        for tail in ("", "-minute", "-hour")
    ]
    names = [f"M{n}-{quantity}" for n in range(40) for quantity in quantities]
    results = []
    taken = 0
    for short in (True, False):
        points = point_table(len(names))
        points.point_id, points.topic = names, [""] * len(names)
        routes = Routes(points, Config(source=[own]))
        source = routes.sources["flood"]
        if not short:
            source.common = None
        else:
            plainly = source.common
            assert plainly is not None
        messages = Messages(routes, 100_000)
        messages.set_window(NOW_US)
        answers = messages.feed_frames(routes.of_source("flood"), sent, "station", NOW_US)
        table = routes.table(None, lambda _name, _topic: True)
        chunk = Chunk([b"epb/x"] * len(sent), sent, b"\x32" * len(sent), "client")
        refused = messages.feed(table, chunk, NOW_US)
        batch, refusals = messages.take(NOW_US)
        results.append((answers, refused, refusals, messages.counts, messages.refused_by_reason, batch))
        if short:
            taken = sum(plainly(frame) is not None for frame in sent)
    assert taken > 200
    for one, other in zip(*results, strict=True):
        if isinstance(one, Counter):
            assert +one == +other
        elif one is results[0][-1]:
            assert len(one) > 500
            for column in ("point", "time", "received_at", "value", "device_flag"):
                np.testing.assert_array_equal(getattr(one, column), getattr(other, column))
        else:
            assert one == other


def test_patterns_are_made_only_of_what_comes_again_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hj212_layout, "LAYOUTS_MAX", 10)
    speaker = Hj212(settings(), ZoneInfo("Asia/Shanghai"))

    def report(names: int, value: int, mn: str = "M") -> bytes:
        head = f"QN=20260801085857223;ST=22;CN=2011;PW=1;MN={mn};Flag=5;"
        return framed(f"{head}CP=&&DataTime=20260801085857;a{names}-Rtd={value}&&".encode())

    for n in range(100):
        speaker.parse("", report(n, 1))
    assert speaker._patterns._known == {}
    for n in range(100):
        for value in range(hj212_layout.SEEN_MIN - 1):
            assert speaker.common(report(n, value)) is None
            speaker.parse("", report(n, value))
    assert len(speaker._patterns._known) == 10
    # Those of other devices with the same names are read at once by the same patterns.
    for value in range(hj212_layout.SEEN_MIN):
        speaker.parse("", report(3, value, "other"))
    common = speaker.common(report(3, 42, "other"))
    assert common is not None
    assert (common.keys, common.values) == ([("other", "a3-Rtd")], [42])
    assert len(speaker._patterns._known) == 10
