"""SenML in JSON as a gateway sends it: the way back from ``ingest.codecs.senml``.

Owns packs of one device each: base name and base time once, names, values and the rest of the time in each record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

import orjson

from ingest.codecs.naming import device_in_topic
from ingest.simulate.encoders.base import Sent, topic_of
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT

US: Final = 1_000_000
RECORDS_MAX: Final = 50
"""Of one pack; larger ones outgrow what small gateways have room for."""


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. ``unit``: u of every record. What is missing is not sent."""

    SOURCE: ClassVar[dict[str, Any]] = {"topics": ["senml/up"]}
    DEVICES: ClassVar[Sequence[str]] = ("urn:dev:ow:10e2073a01080063", "urn:dev:mac:0024beff", "s1")
    QUANTITIES: ClassVar[Sequence[str]] = ("temp", "rain.10min", "water_level")
    TIME_STEP_US: ClassVar[int] = 1000
    DECIMALS: ClassVar[int] = 6
    FLAG: ClassVar[int] = DEVICE_SILENT

    def __init__(self, settings: SourceSettings, zone: ZoneInfo, *, unit: str = "") -> None:
        self._settings = settings
        self._unit = unit
        self._in_topic = device_in_topic(settings)

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of packs that hold these readings."""
        sent = []
        for device, group in groupby(readings, lambda one: one.device):
            topic = topic_of(self._settings, device, "")
            those = [one for one in group if not math.isnan(one.value)]
            begins = range(0, len(those), RECORDS_MAX)
            packs = [self._pack(device, those[begin : begin + RECORDS_MAX]) for begin in begins]
            sent += [(topic, self._bytes(pack)) for pack in packs]
        return sent

    def _pack(self, device: str, readings: Sequence[Sent]) -> list[dict[str, Any]]:
        base, base_s = self._base(device), readings[0].time_us // US
        records: list[dict[str, Any]] = []
        for one in readings:
            record: dict[str, Any] = {"n": self._name(one)[len(base) :], "v": one.value}
            if self._unit:
                record["u"] = self._unit
            if one.time_us != base_s * US:
                record["t"] = (one.time_us - base_s * US) / US
            records.append(record)
        records[0] = {"bn": base, "bt": base_s, **records[0]} if base else {"bt": base_s, **records[0]}
        return records

    def _base(self, device: str) -> str:
        """What all names of a device begin with."""
        if self._in_topic:
            return ""
        pattern = self._settings.senml.name
        before, found, _ = (pattern or "{device}:{quantity}").partition("{quantity}")
        return before.replace("{device}", device) if found and "{device}" in before else ""

    def _name(self, one: Sent) -> str:
        if self._in_topic:
            return one.quantity
        pattern = self._settings.senml.name or "{device}:{quantity}"
        return pattern.replace("{device}", one.device).replace("{quantity}", one.quantity)

    @staticmethod
    def _bytes(pack: list[dict[str, Any]]) -> bytes:
        return orjson.dumps(pack)
