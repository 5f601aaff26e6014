"""[source.hj212], [source.sl651]: what stations of the two field protocols are asked and told.

Owns names, types, defaults and their reasons. Nothing here is read by other codecs.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from storage.settings import Settings

Span = Literal["real", "minute", "hour", "day"]
SPANS: Final[tuple[Span, ...]] = ("real", "minute", "hour", "day")


class Hj212Settings(Settings):
    """[source.hj212]: pollutant monitors (HJ 212-2017, HJ 212-2025, HJ/T 212-2005)."""

    answer: bool = True
    """Data are answered with 9014 and notices with 9013 where the device's Flag asks for it, once they are on disk."""
    quantity: Literal["factor-suffix", "factor"] = "factor-suffix"
    """factor-suffix: "a34004-Rtd" in real time, "a34004-Avg-hour" in an hour's report. factor: only the leading value
    of each report, Rtd or Avg, as "a34004" and "a34004-hour"."""
    suffixes: list[str] = Field(default_factory=list)
    """Only these are readings: ["Rtd", "Avg"]. Empty: all that are numbers."""
    spans: list[Span] = Field(default_factory=lambda: list(SPANS))
    """Only these reports are stored; others are answered and dropped."""
    password: str | None = Field(None, max_length=32)
    """A message with another PW is refused."""


class Sl651Settings(Settings):
    """[source.sl651]: hydrological stations (SL 651-2014, hexadecimal frames)."""

    answer: bool = True
    """Reports are confirmed once they are on disk (mode M2 of the standard, and the last packet of M3)."""
    online: bool = True
    """The answer ends with ESC, stay connected; false: with EOT, the station may switch its modem off."""
    series: Literal["auto", "first", "last"] = "auto"
    """Whether the observation time of a series of five-minute values is that of its first or its last value. Devices
    differ. auto: the first, unless its last value would then lie behind the time the report was sent; for stations
    that send stored reports later, say which."""
    password: str | None = Field(None, pattern=r"^[0-9A-Fa-f]{4}$")
    """Four hexadecimal digits; a frame with others is refused."""
