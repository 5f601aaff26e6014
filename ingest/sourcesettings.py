"""[[source]]: one upstream information system: its topics, payload form, units and limits.

Owns names, types, defaults and their reasons. One table stands in the config or is a file of ``sources.d``. What must
agree between keys is ingest.sourcerules; the paths' grammar is ingest.codecs.paths.
"""

from __future__ import annotations

from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from ingest.codecs.fieldsettings import Hj212Settings, Sl651Settings
from ingest.codecs.options import CsvSettings, InfluxSettings, SenmlSettings, SparkplugSettings
from ingest.eventsettings import EventSettings
from ingest.tcp.settings import TcpSettings
from storage.settings import MIB, Settings


def zone_name(name: str) -> str:
    """``name`` if this machine knows the zone. Raises ValueError."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'unknown time zone "{name}" (expected a name such as "Asia/Shanghai")') from None
    return name


CodecName = Literal["json", "hj212", "sl651", "senml", "senml-cbor", "csv", "sparkplug", "influx", "msgpack"]
MAPPING_KEYS: Final = frozenset(
    {
        "topics", "port", "point_id", "device", "quantity", "time", "value", "flag", "readings", "quantities", "flags",
        "time_format", "text_numbers", "devices", "event",
    }
)  # fmt: skip
"""A JSON source that says none of these speaks the plain form of docs/gateways.md."""


class QuantitySettings(Settings):
    """[source.quantities.NAME]: what the source calls NAME.

    value stored = value sent x factor + offset
    """

    as_: str | None = Field(None, alias="as", min_length=1, max_length=100)
    """Its name in point ids; default NAME itself."""
    factor: float = 1.0
    offset: float = 0.0
    missing: list[float] = Field(default_factory=list)
    """Codes, as sent, that mean "no value" for this quantity, beside the source's missing_values."""
    kind: str = Field("", max_length=200)
    """Of the points that `devices` makes; default the source's kind, else the quantity's name."""
    unit: str = Field("", max_length=200)
    """Of the points that `devices` makes, after the conversion."""


class DeviceSettings(Settings):
    """[source.devices.NAME]: a device of the source, so that its points need no row in the registry."""

    name: str = Field("", max_length=200)
    district: str = Field("", max_length=200)
    lon: float | None = Field(None, ge=-180, le=180)
    lat: float | None = Field(None, ge=-90, le=90)
    quantities: list[str] = Field(default_factory=list)
    """What it measures, names of `quantities`; default all of them."""


class SourceSettings(Settings):
    """[[source]]: one upstream information system."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)
    owner: str = Field("", max_length=200)
    """Who answers for it: a department, a telephone."""
    field: str = Field("", max_length=200)
    """The city's field of work it belongs to: 防汛, 环保 …"""
    codec: CodecName = "json"
    """What its payloads are."""

    topics: list[str] = Field(default_factory=list)
    """Topic filters that belong to it; `{device}` and `{quantity}` may stand for a whole level."""
    port: int | None = Field(None, ge=1, le=65535)
    """Devices connect here with plain TCP, where the codec can find its frames in a stream."""
    credential: str | None = Field(None, max_length=200)
    """Only this credential of the listener may speak for it."""
    gateway_topic: str | None = None
    """Where gateways publish arrays, `{gateway}` standing for the gateway id: "cd/{gateway}/batch"."""

    point_id: str | None = None
    """Point ids from what the source says: "cd-{device}-{quantity}"; default "{device}" or "{device}-{quantity}"."""
    device: str | None = None
    quantity: str | None = None
    time: str | None = None
    value: str | None = None
    flag: str | None = None
    """Paths into the payload: "data.items[].v", "metrics.*", "topic:2"; see docs/sources.md."""
    readings: str | None = None
    """Where the readings stand: paths that do not begin with "$." start at each of its elements."""
    quantities: dict[str, QuantitySettings] = Field(default_factory=dict)
    flags: dict[str, int] = Field(default_factory=dict)
    """The source's words on quality to QARTOD flags: { ok = 1, doubtful = 3, broken = 4 }."""
    text_numbers: bool = False
    """Numbers may come as text: "12.5"."""
    devices: dict[str, DeviceSettings] = Field(default_factory=dict)
    kind: str = Field("", max_length=200)
    """Of its points where their registry rows say none."""
    interval_s: float = Field(0.0, ge=0)
    """How often its points speak where their registry rows say nothing; 0: never dead."""
    time_from: Literal["device", "receive"] = "device"
    """Of its points where their registry rows say nothing; receive: readings may come without a time."""

    event: EventSettings | None = None
    """Its messages are events beside readings, and how."""
    personal: bool = False
    """Its messages may speak of persons: numbers in text are masked strictly, and refused messages are kept as a
    reason and a hash, without their bytes."""
    hj212: Hj212Settings = Hj212Settings()
    sl651: Sl651Settings = Sl651Settings()
    tcp: TcpSettings = TcpSettings()

    id_field: str = "id"
    time_field: str = "ts"
    value_field: str = "v"
    flag_field: str = "q"
    readings_field: str | None = None
    """Where an array stands inside an object: "readings". Field paths use dots: "data.value"."""
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    """Unit of numeric times; declared, never guessed."""
    time_format: str | None = None
    """Of times in text that are not ISO 8601, as strptime has it: "%Y%m%d%H%M%S"."""
    time_zone: str | None = None
    """Of times without an offset; default the city's."""
    bare_numbers: bool = True
    """A payload that is just a number is a value timed on receipt, for points whose registry row says
    time_from = receive."""
    missing_values: list[float] = Field(default_factory=list)
    """Codes that mean "no value", such as -9999: stored as missing (NULL, flag 9)."""

    age_s_max: float = Field(7 * 86_400.0, gt=0)
    ahead_s_max: float = Field(600.0, gt=0)
    """The time window: older or further ahead than this goes to quarantine."""
    rate_max_per_s: float | None = Field(None, gt=0)
    """Readings a second, averaged over ten; a message beyond it goes to quarantine. None by default."""
    message_bytes_max: int = Field(MIB, ge=16, le=256 * MIB)
    readings_per_message_max: int = Field(10_000, ge=1, le=1_000_000)
    depth_max: int = Field(16, ge=1, le=512)
    quarantine_bytes_max: int = Field(256 * MIB, ge=0)
    """Of its refused messages kept with their bytes, in all; beyond it they are only counted. A night of one gateway
    gone mad at 100 messages/s of 200 bytes is 0.9 GB: enough is kept to mend it, and 365 sources cannot fill a disk."""

    senml: SenmlSettings = SenmlSettings()
    csv: CsvSettings = CsvSettings()
    influx: InfluxSettings = InfluxSettings()
    sparkplug: SparkplugSettings = SparkplugSettings()

    @field_validator("time_zone")
    @classmethod
    def check_zone(cls, name: str | None) -> str | None:
        """Refuse a zone this machine does not know."""
        return name if name is None else zone_name(name)

    @property
    def mapped(self) -> bool:
        """Whether a codec and its binding read it, not the plain JSON form of docs/gateways.md."""
        return self.codec != "json" or not MAPPING_KEYS.isdisjoint(self.model_fields_set)


class SourcesSettings(Settings):
    """[sources]: where the files of the sources stand."""

    dir: str = Field("sources.d", min_length=1)
    """Each `*.toml` in it is the body of one [[source]]; its name is the file's if it says none. May be absent."""
