"""What an operator may set about rules: the [rules] tables of the config. Composed by ingest.config.

Owns names, types, defaults and their reasons. The numbers of standards stand in anomaly.rules.tables.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from anomaly.rules.tables import entries
from storage.settings import Settings

ZONES = frozenset(entry["name"] for entry in entries("noise", "zone"))
POLLUTANTS = frozenset(entry["pollutant"] for entry in entries("air", "iaqi"))
INDICATORS = frozenset(entry["name"] for entry in entries("water", "indicator"))

SIGNS = frozenset({"level", "rain", "rise", "noise", "air", "water", "dust", "video", "rain_sum", "rising"})
"""What a compound rule may count: the rules of single points, and two signs of its own."""


def _known(found: dict[str, str], names: frozenset[str]) -> dict[str, str]:
    if wrong := sorted(set(found.values()) - names):
        raise ValueError(f"unknown {', '.join(wrong)} (expected one of {', '.join(sorted(names))})")
    return found


class RainSettings(Settings):
    """[rules.rain]: which kinds measure rain, and how they say it."""

    increment: list[str] = Field(default_factory=lambda: ["rain_gauge"])
    """Kinds whose reading is the rain since the one before it."""
    cumulative: list[str] = Field(default_factory=lambda: ["rain_total"])
    """Kinds whose reading is a counter that only grows until it is set back (SL 651, element 26)."""
    mm_per_minute_max: float = Field(40.0, gt=0)
    """A counter that grows faster was exchanged or set: it becomes the new base and no rain. The greatest
    minute ever measured is 38 mm (WMO archive, Guadeloupe 1970)."""
    leave_gap_mm: float = Field(1.0, ge=0)
    """A step is left only when the sum is back by this much: no flapping at the line."""


class FlashSettings(Settings):
    """[[rules.flash]]: flash-flood steps of an area: blue, yellow, orange, red for each window."""

    name: str = Field(min_length=1, max_length=64)
    districts: list[str] = Field(default_factory=list)
    """Of the registry. Single points name the table in [rules.point."ID"]."""
    table: str | None = None
    """A table that comes with Yuzui, such as "county-example"; hours and mm stand in place of its own."""
    hours: list[int] = Field(default_factory=list, max_length=8)
    """Windows: of 1, 3, 6, 12 and 24."""
    mm: list[list[float]] = Field(default_factory=list, max_length=8)
    """For each window four rising amounts."""

    @field_validator("hours")
    @classmethod
    def _windows(cls, hours: list[int]) -> list[int]:
        if any(h not in (1, 3, 6, 12, 24) for h in hours):
            raise ValueError("windows are 1, 3, 6, 12 and 24 hours")
        return hours

    @field_validator("mm")
    @classmethod
    def _rising(cls, mm: list[list[float]]) -> list[list[float]]:
        if any(len(steps) != 4 or sorted(steps) != steps or steps[0] <= 0 for steps in mm):
            raise ValueError("each window has four rising amounts above 0")
        return mm

    @model_validator(mode="after")
    def _whole(self) -> FlashSettings:
        if (self.table is None and not self.hours) or len(self.hours) != len(self.mm):
            raise ValueError("a flash-flood table names a table, or has hours and as many rows of mm")
        return self

    @field_validator("table")
    @classmethod
    def _table(cls, table: str | None) -> str | None:
        names = [entry["name"] for entry in entries("rain", "flash")]
        if table is not None and table not in names:
            raise ValueError(f'unknown table "{table}" (expected one of {", ".join(names)})')
        return table


class NoiseSettings(Settings):
    """[rules.noise]: limits by day, night and functional zone."""

    zones: dict[str, str] = Field(default_factory=lambda: {"noise": "2", "site_noise": "construction"})
    """Zone of each kind that measures noise; single points say theirs in [rules.point."ID"]."""
    leq_s: int = Field(600, ge=60, le=3600)
    """Limits are for equivalent levels: readings are averaged by energy over spans this long."""
    above_db: list[float] = Field(default_factory=lambda: [0.0, 5.0, 10.0, 15.0], min_length=4, max_length=4)
    """Blue, yellow, orange, red at this much above the limit. Ours, no standard's."""

    _check = field_validator("zones")(lambda cls, zones: _known(zones, ZONES))


class RiseSettings(Settings):
    """[rules.rise]: how soon will the next level be reached."""

    kinds: list[str] = Field(default_factory=lambda: ["waterlogging", "river_level"])
    """Kinds whose levels are looked at ahead; a point needs levels in its registry row or its kind."""
    minutes: list[float] = Field(default_factory=lambda: [10.0, 10.0, 15.0, 15.0], min_length=4, max_length=4)
    """Horizon of blue, yellow, orange and red: a level expected within it stands in its own severity."""
    share: float = Field(1 / 3, ge=0, lt=1)
    """Only from this share of a level on is it expected: the first centimetres of every puddle rise fast. For
    levels above a station's datum it changes nothing."""


class AirSettings(Settings):
    """[rules.air]: IAQI of hourly means, AQI of a station."""

    pollutants: dict[str, str] = Field(
        default_factory=lambda: {name: name for name in ("pm25", "pm10", "so2", "no2", "co", "o3")}
    )
    """Pollutant of each kind; CO in mg/m³, the others in µg/m³."""
    levels: list[float] = Field(
        default_factory=lambda: [150.0, 200.0, 300.0, 400.0], min_length=4, max_length=4
    )
    """Blue, yellow, orange, red when the index is above these."""
    _check = field_validator("pollutants")(lambda cls, found: _known(found, POLLUTANTS))


class WaterSettings(Settings):
    """[rules.water]: classes I to V of surface water."""

    indicators: dict[str, str] = Field(
        default_factory=lambda: {
            "ph": "ph",
            "dissolved_oxygen": "do",
            "codmn": "codmn",
            "cod": "cod",
            "bod5": "bod5",
            "nh3n": "nh3n",
            "tp": "tp",
        }
    )
    """Indicator of each kind, mg/L."""
    target: int = Field(3, ge=1, le=5)
    """The class a section must keep; one class worse is blue, two yellow, three orange."""
    _check = field_validator("indicators")(lambda cls, found: _known(found, INDICATORS))


class DustSettings(Settings):
    """[rules.dust]: dust of construction sites."""

    kinds: list[str] = Field(default_factory=lambda: ["dust_pm10"])
    background: list[str] = Field(default_factory=lambda: ["pm10"])
    """Kinds whose mean over the district is what the site has not made itself."""
    limits: list[float] = Field(default_factory=list, max_length=4)
    """Blue, yellow, orange, red of a site's mean over 15 minutes, µg/m³. Local standards set them: none unless said."""
    above: list[float] = Field(
        default_factory=lambda: [150.0, 250.0, 350.0, 500.0], min_length=4, max_length=4
    )
    """The same of the site's mean less the district's. Ours, no standard's."""


class VideoSettings(Settings):
    """[rules.video]: channels of cameras, of which nothing is received but that they live."""

    kinds: dict[str, float] = Field(default_factory=lambda: {"video": 1.0})
    """Kinds and their fault line: 0 and below is offline, up to the line a bad picture, above it is well. 1.0 for a
    state of 0, 1, 2; for a frame rate the least that can be watched."""
    back_s: float = Field(120.0, ge=0)
    """A channel that was out is back after this long without a gap: one that comes and goes is one alert."""


class ArealSettings(Settings):
    """[rules.areal]: rain over a district."""

    gauges_min: int = Field(3, ge=1)
    """Fewer gauges that speak are no mean of a district."""


_OF_POINTS = frozenset({"rule", "severity", "points", "kinds", "mm", "hours", "growing"})
_OF_EVENTS = frozenset({"category", "count", "within_s", "km"})


def _default(name: str) -> object:
    return Need.model_fields[name].get_default(call_default_factory=True)


class Need(Settings):
    """One sign of a compound rule: so many points of its area that ..., or so many events."""

    rule: str = "level"
    """... stand in this rule ("level", "rain", "rise" …); "rain_sum": whose rain sum reached ``mm``; "rising": whose
    level rises."""
    severity: int = Field(1, ge=1, le=4)
    """... in this class or a worse one."""
    points: int = Field(1, ge=1)
    kinds: list[str] = Field(default_factory=list)
    """... and are of these kinds; all if left out."""
    mm: float = Field(0.0, ge=0)
    hours: int = 24
    growing: bool = False
    """With rain_sum: more fell in the last hour than in the hour before."""
    event: str = Field("", max_length=64)
    """Instead of points: events of this type ("appeal") …"""
    category: str = Field("", max_length=200)
    """… of this category; all if left out …"""
    count: int = Field(1, ge=1)
    """… so many of them, each once …"""
    within_s: float = Field(1800.0, gt=0, le=86_400)
    """… accepted within the last so many seconds …"""
    km: float = Field(0.0, ge=0, le=100)
    """… within this distance of one point that bears another of the rule's signs; 0: anywhere in the area."""

    @model_validator(mode="after")
    def _one_kind(self) -> Need:
        # Not model_fields_set: settings are handed on whole, with their defaults.
        said = {name for name in type(self).model_fields if getattr(self, name) != _default(name)}
        of_points, of_events = sorted(said & _OF_POINTS), sorted(said & _OF_EVENTS)
        if self.event and of_points:
            raise ValueError(f"a need of events has no {', '.join(of_points)}")
        if of_events and not self.event:
            raise ValueError(f"{', '.join(of_events)} belong to a need of events: say event")
        return self

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, rule: str) -> str:
        if rule not in SIGNS:
            raise ValueError(f'unknown rule "{rule}" (expected one of {", ".join(sorted(SIGNS))})')
        return rule

    @field_validator("hours")
    @classmethod
    def _window(cls, hours: int) -> int:
        if hours not in (1, 3, 6, 12, 24):
            raise ValueError("windows are 1, 3, 6, 12 and 24 hours")
        return hours


class CompoundSettings(Settings):
    """[[rules.compound]]: several signs in one area at once, each of which alone would say less."""

    name: str = Field(min_length=1, max_length=64)
    area: Literal["district", "city", "circle"] = "district"
    """Each district by itself, the whole city, or a circle."""
    districts: list[str] = Field(default_factory=list)
    """Only these; all if left out."""
    circle: list[float] = Field(default_factory=list, max_length=3)
    """Longitude, latitude, radius in km; for area = "circle"."""
    severity: int = Field(ge=1, le=4)
    needs: list[Need] = Field(min_length=1, max_length=8)
    """All of them must hold."""

    @model_validator(mode="after")
    def _round(self) -> CompoundSettings:
        if self.area == "circle" and len(self.circle) != 3:
            raise ValueError('area = "circle" needs circle = [longitude, latitude, km]')
        if any(need.km for need in self.needs) and all(need.event for need in self.needs):
            raise ValueError("km is the distance to a point with another sign: add a need of points")
        return self


class PointRules(Settings):
    """[rules.point."ID"]: what holds for one point in place of its kind's."""

    rain: Literal["increment", "cumulative", "none"] | None = None
    flash: str | None = None
    """Name of a [[rules.flash]] table."""
    noise_zone: str | None = None
    water_target: int | None = Field(None, ge=1, le=5)

    @field_validator("noise_zone")
    @classmethod
    def _zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            _known({"zone": zone}, ZONES)
        return zone


class RuleSettings(Settings):
    """[rules]: all of them."""

    rain: RainSettings = RainSettings()
    flash: list[FlashSettings] = Field(default_factory=list)
    noise: NoiseSettings = NoiseSettings()
    rise: RiseSettings = RiseSettings()
    air: AirSettings = AirSettings()
    water: WaterSettings = WaterSettings()
    dust: DustSettings = DustSettings()
    video: VideoSettings = VideoSettings()
    areal: ArealSettings = ArealSettings()
    compound: list[CompoundSettings] = Field(default_factory=list)
    point: dict[str, PointRules] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _flash_tables(self) -> RuleSettings:
        names = {flash.name for flash in self.flash}
        for point_id, own in self.point.items():
            if own.flash is not None and own.flash not in names:
                raise ValueError(
                    f'point "{point_id}" names flash "{own.flash}", which no [[rules.flash]] has'
                )
        return self
