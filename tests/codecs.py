"""What codec tests share: a codec made from the settings of a source, and what it says in few words."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from ingest.codecs.base import Codec, Key, Parsed
from ingest.codecs.table import make_codec
from ingest.sourcesettings import SourceSettings

SHANGHAI = ZoneInfo("Asia/Shanghai")
T0_S = 1_790_000_000
T0 = T0_S * 1_000_000


def codec_of(name: str, **settings: Any) -> Codec:
    """A codec of a source in the city's zone."""
    made = SourceSettings(name="s", codec=name, **settings)  # type: ignore[arg-type]
    return make_codec(name, made, SHANGHAI)


def rows(parsed: Parsed) -> list[tuple[Key, int | None, float]]:
    """(key, time, value) of each reading; the four columns have one length."""
    columns = (parsed.keys, parsed.times, parsed.values, parsed.flags)
    assert len(set(map(len, columns))) == 1
    return list(zip(parsed.keys, parsed.times, parsed.values, strict=True))


def reasons(parsed: Parsed) -> list[str]:
    """Why parts were refused."""
    return [refused.reason for refused in parsed.refusals]
