"""What an encoder is: readings in a source's own words to the messages its devices would send.

Owns the shape and the finding by name. Encoders are the simulator's and the tests'; the engine imports none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol, cast
from zoneinfo import ZoneInfo

from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT


@dataclass(frozen=True, slots=True)
class Sent:
    """One reading as a device knows it.

    time_us  µs since 1970 UTC, a multiple of the encoder's TIME_STEP_US
    value    in the source's own unit; NaN where the device measured nothing
    flag     QARTOD, DEVICE_SILENT where the device says nothing
    """

    device: str
    quantity: str
    time_us: int
    value: float
    flag: int = DEVICE_SILENT


class Encoder(Protocol):
    """Made from a source's settings like its codec: ``Encoder(settings, zone)``.

    SOURCE        a [[source]] body of this codec, for tests
    DEVICES, QUANTITIES  names its format can carry, for tests; QUANTITIES [""] where a device has one only
    TIME_STEP_US  the finest time its format can carry
    DECIMALS      digits behind the point its format can carry
    FLAG          what its devices say of a good reading: DEVICE_SILENT where its format says nothing of quality
    """

    SOURCE: ClassVar[dict[str, Any]]
    DEVICES: ClassVar[Sequence[str]]
    QUANTITIES: ClassVar[Sequence[str]]
    TIME_STEP_US: ClassVar[int]
    DECIMALS: ClassVar[int]
    FLAG: ClassVar[int]

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        """``zone``: that of times without an offset."""

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of messages that hold these readings, each once, in about this order."""
        ...


def encoder_class(codec: str) -> type[Encoder] | None:
    """The class ``Encoder`` of the module named as the codec, with "_" for "-"; None where there is none."""
    module = f"{__package__}.{codec.replace('-', '_')}"
    if find_spec(module) is None:
        return None
    return cast("type[Encoder]", import_module(module).Encoder)


def topic_of(settings: SourceSettings, device: str, quantity: str) -> str:
    """A topic of the source's first filter that says what the filter lets it say; "t" where the source has none.

    >>> topic_of(SourceSettings(name="s", topics=["epb/{device}/+/#"]), "d1", "")
    'epb/d1/x/x'
    """
    if not settings.topics:
        return "t"
    said = {"{device}": device, "{quantity}": quantity, "+": "x", "#": "x"}
    levels = [said.get(level, level) for level in settings.topics[0].split("/")]
    for name, value in (("device", device), ("quantity", quantity)):
        place: str | None = getattr(settings, name)
        if place is not None and place.startswith("topic:") and int(place[6:]) < len(levels):
            levels[int(place[6:])] = value
    return "/".join(levels)
