"""HJ 212 as a data logger sends it: the way back from ``ingest.codecs.hj212``.

Owns reports of the four spans, cut into frames no longer than the standard allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.codecs.clocktime import field_zone
from ingest.codecs.hj212 import framed
from ingest.simulate.encoders.base import Sent, topic_of
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, FAIL, GOOD, MISSING, NOT_EVALUATED, SUSPECT

SEGMENT_BYTES_MAX: Final = 1024
"""HJ 212-2017, table 1."""
COMMANDS: Final = {"real": 2011, "minute": 2051, "hour": 2061, "day": 2031}
LETTERS: Final = {GOOD: "N", SUSPECT: "M", FAIL: "D", NOT_EVALUATED: "S", MISSING: "B"}


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. ``system``: ST, 22 for air; ``password``: PW."""

    SOURCE: ClassVar[dict[str, Any]] = {"topics": ["epb/{device}/212"], "time_zone": "Asia/Shanghai"}
    DEVICES: ClassVar[Sequence[str]] = ("010000A8900016F000169DC0", "411420sibo0606", "88888880000001")
    QUANTITIES: ClassVar[Sequence[str]] = (
        "a34004-Rtd", "a34002-Rtd", "a21026-Rtd", "a21026-ZsRtd", "a34004-Avg-minute", "a34004-Max-hour",
        "w01018-Cou-day",
    )  # fmt: skip
    TIME_STEP_US: ClassVar[int] = 1_000_000
    DECIMALS: ClassVar[int] = 4
    FLAG: ClassVar[int] = GOOD

    def __init__(
        self, settings: SourceSettings, zone: ZoneInfo, *, system: int = 22, password: str = "123456"
    ) -> None:
        self._settings = settings
        self._zone = field_zone(settings, zone)
        self._system = system
        self._password = password
        self._count = 0

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, frame) of frames that hold these readings."""
        sent = []
        for (device, span, time_us), group in groupby(readings, self._report):
            topic = topic_of(self._settings, device, "")
            texts = self._texts(list(group), span)
            sent += [(topic, self._frame(device, span, time_us, text)) for text in texts]
        return sent

    def _report(self, one: Sent) -> tuple[str, str, int]:
        return one.device, self._named(one.quantity)[2], one.time_us

    def _named(self, quantity: str) -> tuple[str, str, str]:
        """(factor, suffix, span) of a quantity."""
        name, dash, span = quantity.rpartition("-")
        if not dash or span not in COMMANDS:
            name, span = quantity, "real"
        if self._settings.hj212.quantity == "factor":
            return name, "Rtd" if span == "real" else "Avg", span
        factor, _, suffix = name.rpartition("-")
        return factor, suffix, span

    def _texts(self, readings: list[Sent], span: str) -> Iterator[str]:
        """What stands behind DataTime, as much as one frame holds."""
        room = SEGMENT_BYTES_MAX - 140
        factors: dict[str, tuple[int, dict[str, float]]] = {}
        used = 0
        for one in readings:
            factor, suffix, _ = self._named(one.quantity)
            flag, values = factors.get(factor, (one.flag, {}))
            if suffix in values or flag != one.flag or used > room:
                yield _text(factors)
                factors, used = {}, 0
                flag, values = one.flag, {}
            values[suffix] = one.value
            factors[factor] = flag, values
            used += len(factor) + len(suffix) + len(_number(one.value)) + 3
            used += 0 if len(values) > 1 else len(factor) + len("-Flag=N;")
        yield _text(factors)

    def _frame(self, device: str, span: str, time_us: int, text: str) -> bytes:
        moment = datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(self._zone)
        stamp = f"{moment:%Y%m%d%H%M%S}"
        self._count += 1
        segment = (
            f"QN={stamp}{self._count % 1000:03d};ST={self._system};CN={COMMANDS[span]};PW={self._password};MN={device};"
            f"Flag={4 | self._settings.hj212.answer};CP=&&DataTime={stamp};{text}&&"
        )
        return framed(segment.encode())


def _text(factors: dict[str, tuple[int, dict[str, float]]]) -> str:
    items = []
    for factor, (flag, values) in factors.items():
        fields = [f"{factor}-{suffix}={_number(value)}" for suffix, value in values.items()]
        if flag != DEVICE_SILENT:
            fields.append(f"{factor}-Flag={LETTERS[flag]}")
        items.append(",".join(fields))
    return ";".join(items)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}".rstrip("0").rstrip(".")
