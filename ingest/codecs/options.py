"""What a source may set for its codec alone: [source.senml], [source.csv], [source.influx], [source.sparkplug].

Owns names, types, defaults and their reasons. What every source has is SourceSettings.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ingest.codecs.naming import NamePattern, Template
from storage.settings import Settings


class SenmlSettings(Settings):
    """[source.senml]: how a SenML name says device and quantity."""

    name: str = ""
    """Pattern of resolved names (bn and n joined), such as "urn:dev:{device}:{quantity}". Default: the quantity is what
    follows the last ":" or "/"."""

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuse a pattern that could never be told apart."""
        if name:
            NamePattern(name)
        return name


class CsvSettings(Settings):
    """[source.csv]: rows of text. Columns are named by the header, or by `columns`, or by number from 1 on."""

    header: bool = True
    """Every message begins with a line of names."""
    columns: list[str] = Field(default_factory=list)
    """Names where there is no header: ["station", "time", "level"]."""
    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    thousands: str = Field("", max_length=1)
    """What groups digits: "" for nothing."""
    encoding: Literal["utf-8", "gb18030", "latin-1"] = "utf-8"
    time_columns: list[str] = Field(default_factory=list)
    """Where date and time stand in columns of their own; they are joined by a space."""
    empty: Literal["missing", "skip"] = "missing"
    """What an empty field of a value is: a reading without a value (flag 9), or no reading."""
    ignore: list[str] = Field(default_factory=list)
    """Columns that are no quantities."""


class InfluxSettings(Settings):
    """[source.influx]: how measurement, tags and fields of a line say device and quantity."""

    device: str = "{series}"
    """From {measurement}, {series} (measurement and tags, as written) and {tag:NAME}."""
    quantity: str = "{field}"
    """From {field}, {measurement} and {tag:NAME}."""
    precision: Literal["ns", "us", "ms", "s", "m", "h"] = "ns"
    """Unit of timestamps."""
    ignore: list[str] = Field(default_factory=list)
    """Fields that are no quantities, such as texts."""

    @field_validator("device", "quantity")
    @classmethod
    def check_template(cls, text: str) -> str:
        """Refuse what can never be filled in."""
        Template(text)
        return text


class SparkplugSettings(Settings):
    """[source.sparkplug]: what becomes of metrics."""

    device: str = "{node}/{device}"
    """From {group}, {node} and {device}; a node's own metrics have no device, and "/{device}" falls away."""
    ignore: list[str] = Field(default_factory=lambda: ["Node Control/*", "Device Control/*", "bdSeq"])
    """Metrics that are no quantities; a `*` at the end stands for any rest."""
    rebirth: bool = True
    """Ask a node for its BIRTH where it is needed and has not come."""
    rebirth_s_min: float = Field(10.0, ge=0.1)
    """Between two requests to the same node: a node that cannot give birth must not be drowned in them."""
