"""The codec "msgpack": MessagePack bodies, read by the same mapping as JSON.

Owns bytes to a body and the limits of its form. What the body means is ingest.codecs.mapping.
"""

from __future__ import annotations

from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import msgpack

from ingest.codecs.base import Parsed
from ingest.codecs.json_mapping import depth_of
from ingest.codecs.mapping import MappedBody
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings


class MsgpackMapping:
    """See ingest.codecs.base.Codec. Keys that are whole numbers are read as their digits: path "1.temp"."""

    name: ClassVar[str] = "msgpack"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        self._body = MappedBody(settings, zone)
        self._depth_max = settings.depth_max

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """Every reading of one MessagePack object."""
        try:
            body = msgpack.unpackb(payload)
            numbered = False
        except Exception:  # what is wrong is found again below
            body = _with_numbered_keys(payload)
            numbered = True
        if type(body) in (dict, list) and depth_of(body) > self._depth_max:
            raise Refused("too_deep", f"{depth_of(body)} levels, at most {self._depth_max}")
        return self._body.read(_keys_as_text(body) if numbered else body)


def _with_numbered_keys(payload: bytes) -> Any:
    """A body whose objects may have numbers for keys, as small devices send. Raises Refused."""
    try:
        return msgpack.unpackb(payload, strict_map_key=False)
    except Exception as fault:  # its own, and those of keys that cannot be one
        raise Refused("bad_msgpack", f"{type(fault).__name__}: {fault}") from None


def _keys_as_text(body: Any) -> Any:
    """Only bodies of bounded depth come here."""
    if type(body) is dict:
        return {str(key): _keys_as_text(value) for key, value in body.items()}
    return [_keys_as_text(one) for one in body] if type(body) is list else body
