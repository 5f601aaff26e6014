"""Sparkplug B as an edge node speaks it: the way back from ``ingest.codecs.sparkplug``.

Owns the node's life: NBIRTH, a DBIRTH of each device with what it measures, DATA by alias, the will, rebirth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, ClassVar, Final
from zoneinfo import ZoneInfo

from ingest.codecs.sparkplug import BD_SEQ, NAMESPACE, REBIRTH, SEQ_COUNT
from ingest.codecs.sparkplug_pb2 import Metric, Payload
from ingest.codecs.sparkplug_values import BOOLEAN, DOUBLE, UINT64
from ingest.simulate.encoders.base import Sent
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, FAIL, GOOD, SUSPECT

METRICS_MAX: Final = 100
"""Of one DATA message."""
_QUALITY: Final = {GOOD: 192, SUSPECT: 500, FAIL: 0}


class Encoder:
    """See ingest.simulate.encoders.base.Encoder. One edge node ``node``, all devices behind it."""

    SOURCE: ClassVar[dict[str, Any]] = {"topics": ["spBv1.0/plant/#"], "sparkplug": {"device": "{device}"}}
    DEVICES: ClassVar[Sequence[str]] = ("s1", "测站-2", "q 3")
    QUANTITIES: ClassVar[Sequence[str]] = ("Inputs/level", "温度", "x")
    TIME_STEP_US: ClassVar[int] = 1000
    DECIMALS: ClassVar[int] = 6
    FLAG: ClassVar[int] = GOOD

    def __init__(self, settings: SourceSettings, zone: ZoneInfo, *, node: str = "n1") -> None:
        self._node = node
        self._group = settings.topics[0].split("/")[1] if settings.topics else "g"
        self._bd_seq = 0
        self.rebirth()

    def rebirth(self) -> None:
        """What comes next begins with a BIRTH."""
        self._seq = -1
        self._aliases: dict[tuple[str, str], int] = {}

    def death(self) -> tuple[str, bytes]:
        """(topic, payload) of the will of the present life; what follows is another."""
        will = Payload()
        _bd_seq(will.metrics.add(), self._bd_seq)
        self._bd_seq = (self._bd_seq + 1) % SEQ_COUNT
        self.rebirth()
        return self._topic("NDEATH"), will.SerializeToString()

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of messages that hold these readings, births before them where they are due."""
        sent = [] if self._seq >= 0 else [self._node_birth(readings[0].time_us)]
        new: dict[str, dict[str, Sent]] = {}
        rest = []
        for one in readings:
            if (one.device, one.quantity) in self._aliases or one.quantity in new.get(one.device, {}):
                rest.append(one)
            else:
                new.setdefault(one.device, {})[one.quantity] = one
        for device, first in new.items():
            sent.append(self._birth(device, first.values()))
        for device, group in groupby(rest, lambda one: one.device):
            those = list(group)
            begins = range(0, len(those), METRICS_MAX)
            sent += [self._data(device, those[begin : begin + METRICS_MAX]) for begin in begins]
        return sent

    def _topic(self, kind: str, device: str = "") -> str:
        return "/".join([NAMESPACE, self._group, kind, self._node, *([device] if device else [])])

    def _numbered(self, time_us: int) -> Payload:
        self._seq = (self._seq + 1) % SEQ_COUNT
        return Payload(timestamp=time_us // 1000, seq=self._seq)

    def _node_birth(self, time_us: int) -> tuple[str, bytes]:
        birth = self._numbered(time_us)
        _bd_seq(birth.metrics.add(), self._bd_seq)
        control = birth.metrics.add()
        control.name, control.datatype, control.boolean_value = REBIRTH.encode(), BOOLEAN, False
        return self._topic("NBIRTH"), birth.SerializeToString()

    def _birth(self, device: str, first: Iterable[Sent]) -> tuple[str, bytes]:
        """A device with one reading of each quantity."""
        those = list(first)
        birth = self._numbered(those[0].time_us)
        for one in those:
            alias = self._aliases.setdefault((device, one.quantity), len(self._aliases) + 1)
            metric = birth.metrics.add()
            metric.name, metric.alias, metric.datatype = one.quantity.encode(), alias, DOUBLE
            _say(metric, one)
        return self._topic("DBIRTH", device), birth.SerializeToString()

    def _data(self, device: str, readings: Sequence[Sent]) -> tuple[str, bytes]:
        data = self._numbered(readings[-1].time_us)
        for one in readings:
            metric = data.metrics.add()
            metric.alias = self._aliases[device, one.quantity]
            _say(metric, one)
        return self._topic("DDATA", device), data.SerializeToString()


def _bd_seq(metric: Metric, number: int) -> None:
    metric.name, metric.datatype, metric.long_value = BD_SEQ, UINT64, number


def _say(metric: Metric, one: Sent) -> None:
    """Time, value and quality of a reading."""
    metric.timestamp = one.time_us // 1000
    if math.isnan(one.value):
        metric.is_null = True
    else:
        metric.double_value = one.value
    if one.flag != DEVICE_SILENT and one.flag in _QUALITY:
        metric.properties.keys.append(b"Quality")
        metric.properties.values.add(type=3, int_value=_QUALITY[one.flag])
