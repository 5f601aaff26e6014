"""The table of codecs: a name of the config to the class that reads that format.

Owns the names. A codec's module is imported only when a source speaks it: its library need not be there otherwise.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast
from zoneinfo import ZoneInfo

from ingest.codecs.base import Codec

if TYPE_CHECKING:
    from ingest.config import SourceSettings

CODECS: Final[dict[str, str]] = {
    "json": "ingest.codecs.json_mapping:JsonMapping",
    "csv": "ingest.codecs.csv_rows:CsvRows",
    "hj212": "ingest.codecs.hj212:Hj212",
    "influx": "ingest.codecs.influx:Influx",
    "msgpack": "ingest.codecs.msgpack:MsgpackMapping",
    "senml": "ingest.codecs.senml:Senml",
    "senml-cbor": "ingest.codecs.senml:SenmlCbor",
    "sl651": "ingest.codecs.sl651:Sl651",
    "sparkplug": "ingest.codecs.sparkplug:Sparkplug",
}
"""``codec`` of a source to "module:class"."""


def codec_class(name: str) -> type[Codec]:
    """The class of a codec. Raises KeyError for a name that is not in the table."""
    module, _, attribute = CODECS[name].partition(":")
    return cast("type[Codec]", getattr(import_module(module), attribute))


def make_codec(name: str, settings: SourceSettings, zone: ZoneInfo) -> Codec:
    """The codec of one source."""
    return codec_class(name)(settings, zone)
