"""Points that a source declares by its devices: registry rows from the source's file.

Owns how a device and its quantities become points. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ingest.codecs.binding import point_id_of, template_of
from ingest.sourcesettings import QuantitySettings, SourceSettings

DECLARED: Final = ("point_id", "name", "device_id", "source", "kind", "unit", "district", "lon", "lat")
"""Columns of the registry that a device can say."""


def device_points(source: SourceSettings) -> Iterator[tuple[str, ...]]:
    """A row of DECLARED and the place that says it, for each quantity of each device.

    A source without quantities has one point a device.
    """
    for device_id, device in source.devices.items():
        for quantity in device.quantities or list(source.quantities) or [""]:
            how = source.quantities.get(quantity) or QuantitySettings()
            known = how.as_ or quantity
            called = " ".join(part for part in (device.name or device_id, known) if part)
            yield (
                point_id_of(template_of(source), source.name, device_id, known), called, device_id, source.name,
                how.kind or source.kind or known or "unknown", how.unit, device.district,
                _written(device.lon), _written(device.lat), f"source {source.name}, device {device_id}",
            )  # fmt: skip


def _written(number: float | None) -> str:
    return "" if number is None else repr(number)
