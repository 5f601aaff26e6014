"""Rows for the registry, proposed from what quarantine saw of unknown points.

Owns the guesses. Writes nothing: a person reads the proposal, completes it and adds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ingest.config import Config
from ingest.pointcsv import written

COLUMNS = ("point_id", "name", "gateway_id", "source", "kind", "topic", "expected_interval_s", "time_from")
KIND_UNKNOWN = "unknown"
SAMPLE_CHARS_MAX = 120
"""Of a payload, in the comment above its row."""

_HEAD = """\
# Proposed from quarantine: points that published but are not in the registry, the busiest first.
# Complete kind, name, place and limits, then append the rows to the registry.
# kind "unknown" has no limits, interval 0 is never judged dead, and so is what was only guessed.
"""


class Seen(NamedTuple):
    """What quarantine holds of one unknown point.

    point_id  what the payload called it, None where only the topic names it
    n         how many readings were refused
    sample    one payload, as received; None where none was kept
    """

    source: str
    topic: str
    point_id: str | None
    n: int
    sample: bytes | None


def propose(seen: Iterable[Seen], config: Config) -> str:
    """A CSV that read_registry takes once its rows have been completed.

    The source is kept where the config has it, or taken from the config's only one. A point named inside a
    gateway's message gets its own topic beside the gateway's. What cannot be an id or topic at all (empty, a
    control character, a wildcard) is listed as a comment.
    """
    merged: dict[tuple[str, str, str], Seen] = {}
    for one in seen:
        key = (one.source, one.topic, one.point_id or "")
        before = merged.get(key)
        merged[key] = one if before is None else before._replace(n=before.n + one.n)
    lines = [_HEAD, written(COLUMNS)]
    taken: set[str] = set()
    for one in sorted(merged.values(), key=lambda s: (-s.n, s.topic, s.point_id or "")):
        lines += _proposal(one, config, taken)
    return "".join(lines)


def _proposal(seen: Seen, config: Config, taken: set[str]) -> Iterator[str]:
    source, gateway = _origin(seen, config)
    point_id = seen.point_id or re.sub(r"/+", "-", seen.topic.strip("/"))
    topic = seen.topic
    if gateway or (seen.point_id and not topic.endswith(seen.point_id)):
        topic = f"{topic.rpartition('/')[0] or topic}/{seen.point_id or point_id}"
    sample = _plain((seen.sample or b"").decode(errors="replace"))
    yield f"# {_plain(seen.topic)}: {seen.n:,} refused, for example {sample}\n"
    if not _possible(point_id, topic) or point_id in taken or topic in taken:
        yield f"# no row: {_plain(point_id)} cannot be a point or is proposed already\n"
        return
    taken |= {point_id, topic}
    yield written([point_id, "", gateway, source, KIND_UNKNOWN, topic, "0", "device"])


def _origin(seen: Seen, config: Config) -> tuple[str, str]:
    """(source, gateway_id), the gateway "" where the topic is not a gateway's."""
    for source in config.source:
        if source.gateway_topic is None:
            continue
        before, _, after = source.gateway_topic.partition("{gateway}")
        found = re.fullmatch(f"{re.escape(before)}([^/]+){re.escape(after)}", seen.topic)
        if found and seen.source in (source.name, "", "unknown"):
            return source.name, found[1]
    names = [source.name for source in config.source]
    if seen.source in names or len(names) != 1:
        return seen.source, ""
    return names[0], ""


def _possible(point_id: str, topic: str) -> bool:
    text = point_id + topic
    return (
        bool(point_id and topic) and text.isprintable() and not set(topic) & set("+#") and point_id[0] != "#"
    )


def _plain(text: str) -> str:
    """One short line, whatever a device sent."""
    line = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: SAMPLE_CHARS_MAX + 1]
    )
    return line[:SAMPLE_CHARS_MAX] + "…" if len(line) > SAMPLE_CHARS_MAX else line
