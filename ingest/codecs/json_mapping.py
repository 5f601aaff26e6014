"""The codec "json": any JSON a source declares a mapping for.

Owns bytes to a body and the limits of its form. What the body means is ingest.codecs.mapping.
"""

from __future__ import annotations

from typing import ClassVar, Final
from zoneinfo import ZoneInfo

import orjson

from ingest.codecs.base import Key, Parsed
from ingest.codecs.mapping import MappedBody
from ingest.codecs.plan import Plan
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings

SHALLOW_MAX: Final = 1_000
SHALLOW_BYTES_MAX: Final = 2_000
"""Shapes found shallow that are remembered: a system sends the same few again and again. At most 2 MB."""
_shallow: Final[set[tuple[bytes, int]]] = set()
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


class JsonMapping:
    """See ingest.codecs.base.Codec."""

    name: ClassVar[str] = "json"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        self._body = MappedBody(settings, zone)
        self._depth_max = settings.depth_max

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """Every reading of one JSON text."""
        return self._body.read(json_body(payload, self._depth_max))

    @property
    def plans(self) -> tuple[Plan, Plan | None]:
        """Of a body that is an object or an array, and of an array of such; None where the first says that too."""
        return self._body.plans

    def spoken(self, payload: bytes) -> list[tuple[bytes, Key]]:
        """See ingest.codecs.base.SpokenCodec: device, a NUL, quantity."""
        try:
            keys = dict.fromkeys(self._body.read(json_body(payload, self._depth_max)).keys)
        except Refused:
            return []
        return [(f"{device}\0{quantity}".encode(), (device, quantity)) for device, quantity in keys]


def json_body(payload: bytes, depth_max: int) -> object:
    """The body of a JSON text (RFC 8259). Raises Refused."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as fault:
        text = str(fault)
        raise Refused("not_finite" if "infinity" in text else "bad_json", text) from None
    if too_deep(payload, depth_max):
        depth = depth_of(body)
        if depth > depth_max:
            raise Refused("too_deep", f"{depth} levels, at most {depth_max}")
    return body


def too_deep(payload: bytes, depth_max: int) -> bool:
    """Whether a JSON text may be nested deeper than ``depth_max``; never False for one that is.

    Its brackets alone are looked at, the innermost pairs taken away again and again. Brackets inside text may leave a
    rest: then somebody must walk the body.
    """
    if payload.count(b"[") + payload.count(b"{") <= depth_max:
        return False
    brackets = payload.translate(None, _NO_BRACKETS)
    if (brackets, depth_max) in _shallow:
        return False
    left = brackets
    for _ in range(depth_max):
        left = left.replace(b"{}", b"").replace(b"[]", b"")
        if not left:
            if len(_shallow) < SHALLOW_MAX and len(brackets) < SHALLOW_BYTES_MAX:
                _shallow.add((brackets, depth_max))
            return False
    return True


def depth_of(body: object) -> int:
    """Levels of nesting, found without recursion: the parser's own limit is 1,024."""
    deepest = 0
    open_levels = [(body, 1)]
    while open_levels:
        inner, level = open_levels.pop()
        if isinstance(inner, dict):
            deepest = max(deepest, level)
            open_levels.extend((v, level + 1) for v in inner.values())
        elif isinstance(inner, list):
            deepest = max(deepest, level)
            open_levels.extend((v, level + 1) for v in inner)
    return deepest
