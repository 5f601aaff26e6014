"""Values of Sparkplug B metrics (Sparkplug 3.0, section 6.4.16) as numbers.

Owns datatypes, two's complement and quality. Knows nothing of nodes or births.
"""

from __future__ import annotations

import struct
from typing import Final

from ingest.codecs.sparkplug_pb2 import Metric, PropertySet
from ingest.decode.refused import Refused
from storage.flags import DEVICE_SILENT, FAIL, GOOD, SUSPECT

INT8: Final = 1
INT64: Final = 4
UINT64: Final = 8
FLOAT, DOUBLE, BOOLEAN, DATETIME = 9, 10, 11, 13

_BITS: Final = {1: 8, 2: 16, 3: 32, 4: 64, 5: 8, 6: 16, 7: 32, 8: 64, DATETIME: 64}
_SIGNED: Final = frozenset({1, 2, 3, 4})
_CALLED: Final = {
    12: "text", 14: "text", 15: "a UUID", 16: "a dataset", 17: "bytes", 18: "a file", 19: "a template",
    20: "a property set", 21: "property sets",
}  # fmt: skip
_ARRAY_FIRST, _ARRAY_LAST = 22, 34
_QUALITY: Final = {0: FAIL, 192: GOOD, 500: SUSPECT}
"""Sparkplug 3.0, 6.4.9: bad, good and stale."""


def number_of(metric: Metric, datatype: int) -> float:
    """The value of a metric. ``datatype`` of its BIRTH, or 0 where nobody told it.

    Raises Refused for what is no number, or does not fit its datatype.
    """
    form = metric.WhichOneof("value")
    if form is None:
        raise Refused("no_value", "the metric has no value and does not say it is null")
    if datatype in _CALLED or _ARRAY_FIRST <= datatype <= _ARRAY_LAST:
        called = _CALLED.get(datatype, "an array")
        raise Refused("wrong_type", f"the metric is {called}; a point holds numbers")
    if form == "int_value" or form == "long_value":
        given = metric.int_value if form == "int_value" else metric.long_value
        return _from_integer(given, datatype, 32 if form == "int_value" else 64)
    if form == "float_value":
        return _as_written(metric.float_value)
    if form == "double_value":
        return metric.double_value
    if form == "boolean_value":
        return float(metric.boolean_value)
    raise Refused("wrong_type", f"the metric has a {form.removesuffix('_value')}; a point holds numbers")


def _from_integer(given: int, datatype: int, sent_bits: int) -> float:
    """An integer as its datatype has it. Negative ones come as two's complement: of the datatype's width or of the
    field's, speakers differ."""
    if datatype == BOOLEAN:
        if given > 1:
            raise Refused("wrong_type", f"{given} is no boolean")
        return float(given)
    bits = _BITS.get(datatype)
    if bits is None:
        if datatype in (FLOAT, DOUBLE) or datatype == 0:
            return float(given)
        raise Refused("wrong_type", f"datatype {datatype} is not of Sparkplug 3.0")
    if datatype in _SIGNED and bits <= sent_bits:
        half = 1 << (bits - 1)
        if given >= (1 << sent_bits) - half:
            return float(given - (1 << sent_bits))
        if bits < sent_bits and half <= given < 1 << bits:
            return float(given - (1 << bits))
        if given >= half:
            raise Refused("wrong_type", f"{given} is beyond Int{bits}")
    elif given >= 1 << bits:
        raise Refused("wrong_type", f"{given} is beyond UInt{bits}")
    return float(given)


def _as_written(value: float) -> float:
    """A float32 as the shortest decimal that means it: 21.3 and not 21.299999237060547."""
    if value != value or value in (float("inf"), float("-inf")):
        return value
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) <= _FLOAT_MAX and struct.unpack("<f", struct.pack("<f", short))[0] == value:
            return short
    return value


_FLOAT_MAX: Final = 3.4028234663852886e38


def quality_of(properties: PropertySet) -> int:
    """The device flag of a metric's property "Quality"; DEVICE_SILENT where it says none."""
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == b"Quality":
            form = value.WhichOneof("value")
            code = (
                value.int_value if form == "int_value" else value.long_value if form == "long_value" else -1
            )
            return _QUALITY.get(code, DEVICE_SILENT)
    return DEVICE_SILENT
