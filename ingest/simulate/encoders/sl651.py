"""SL 651 as a telemetry station sends it: the way back from ``ingest.codecs.sl651``.

Owns timed reports of single elements, and the hourly series of rain and level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.codecs.checksums import crc_modbus
from ingest.codecs.clocktime import field_zone
from ingest.codecs.sl651 import MARK, SERIES
from ingest.simulate.encoders.base import Sent, topic_of
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT

TIMED: Final = 0x32
HOURLY: Final = 0x34
US_PER_MINUTE: Final = 60_000_000
BODY_BYTES_MAX: Final = 1_000
"""Of one report; the standard lets a length be 4,095."""


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. ``kind``: the station's class, H for a river."""

    SOURCE: ClassVar[dict[str, Any]] = {"topics": ["water/{device}/651"], "time_zone": "Asia/Shanghai"}
    DEVICES: ClassVar[Sequence[str]] = ("0012345678", "1000000006", "0011223344")
    QUANTITIES: ClassVar[Sequence[str]] = ("39", "26", "20", "38", "03")
    TIME_STEP_US: ClassVar[int] = 1_000_000
    DECIMALS: ClassVar[int] = 3
    FLAG: ClassVar[int] = DEVICE_SILENT

    def __init__(
        self,
        settings: SourceSettings,
        zone: ZoneInfo,
        *,
        centre: int = 1,
        password: int = 0x1234,
        kind: str = "H",
    ) -> None:
        self._settings = settings
        self._zone = field_zone(settings, zone)
        self._centre = centre
        self._password = password
        self._kind = kind
        self._serial = 0

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, frame) of frames that hold these readings."""
        sent = []
        for (device, time_us), group in groupby(readings, lambda one: (one.device, one.time_us)):
            elements = b""
            for one in group:
                if len(elements) > BODY_BYTES_MAX:
                    sent.append(self._message(device, time_us, elements))
                    elements = b""
                elements += element(one.quantity, one.value, self.DECIMALS)
            sent.append(self._message(device, time_us, elements))
        return sent

    def hour(self, device: str, quantity: str, last_us: int, values: Sequence[float]) -> bytes:
        """An hourly report: twelve values five minutes apart, the last at ``last_us``. ``quantity``: F4 … FC."""
        code = int(quantity, 16)
        size, count, units = SERIES[code]
        assert len(values) == count
        series = b"".join(
            (b"\xff" * size if math.isnan(v) else round(v * units).to_bytes(size, "big")) for v in values
        )
        first_us = last_us - (count - 1) * 5 * US_PER_MINUTE
        observed = bytes.fromhex(f"F0F0{self._clock(first_us)[:10]}")
        data = observed + bytes((code, size * count << 3)) + series
        return self._frame(device, HOURLY, last_us + 1_000_000, data)

    def _message(self, device: str, time_us: int, elements: bytes) -> tuple[str, bytes]:
        # An observation's time has whole minutes; other times are those of sending.
        observed = b"" if time_us % US_PER_MINUTE else bytes.fromhex(f"F0F0{self._clock(time_us)[:10]}")
        return topic_of(self._settings, device, ""), self._frame(device, TIMED, time_us, observed + elements)

    def _frame(self, device: str, function: int, sent_us: int, data: bytes) -> bytes:
        self._serial = self._serial % 0xFFFF + 1
        station = bytes.fromhex(device)
        body = self._serial.to_bytes(2, "big") + bytes.fromhex(self._clock(sent_us))
        body += b"\xf1\xf1" + station + self._kind.encode() + data
        head = (
            MARK + bytes((self._centre,)) + station + self._password.to_bytes(2, "big") + bytes((function,))
        )
        frame = head + len(body).to_bytes(2, "big") + b"\x02" + body + b"\x03"
        return frame + crc_modbus(frame).to_bytes(2, "big")

    def _clock(self, time_us: int) -> str:
        return f"{datetime.fromtimestamp(time_us / 1e6, UTC).astimezone(self._zone):%y%m%d%H%M%S}"


def element(quantity: str, value: float, decimals: int) -> bytes:
    """An element in BCD: code, data definition, value; FF throughout for no value.

    >>> element("39", 0.127, 3).hex(), element("03", -1.5, 1).hex(), element("39", float("nan"), 3).hex()
    ('392300000127', '0319ff0015', '3923ffffffff')
    """
    digits = "" if math.isnan(value) else str(round(abs(value) * 10**decimals))
    size = 4 if decimals > 2 else 2
    size = max(size, (len(digits) + 1) // 2)
    data = b"\xff" * size if math.isnan(value) else bytes.fromhex(digits.zfill(2 * size))
    if value < 0:
        data = b"\xff" + data
    return bytes.fromhex(quantity) + bytes((len(data) << 3 | decimals,)) + data
