"""Topic names and filters: what is well formed, and which filter takes which topic.

Owns the grammar of MQTT 4.7. Knows nothing of who may publish what.
"""

from __future__ import annotations

from ingest.mqtt.fields import TEXT_BYTES_MAX, MalformedPacket, Reason

SHARE = "$share/"


def check_topic(topic: str) -> str:
    """``topic`` if it may be published to. Raises MalformedPacket: empty, wildcard, U+0000, too long."""
    if not topic:
        raise MalformedPacket(Reason.TOPIC_NAME_INVALID, "empty topic")
    if "+" in topic or "#" in topic:
        raise MalformedPacket(Reason.TOPIC_NAME_INVALID, f"wildcard in a topic name: {topic[:100]!r}")
    if "\0" in topic or len(topic.encode()) > TEXT_BYTES_MAX:
        raise MalformedPacket(Reason.TOPIC_NAME_INVALID, "topic has U+0000 or is longer than 65,535 bytes")
    return topic


def check_filter(pattern: str) -> str:
    """``pattern`` if it is a topic filter, ``$share/group/filter`` too. Raises MalformedPacket."""
    levels = filter_levels(pattern)
    if not pattern or "\0" in pattern or not levels:
        raise MalformedPacket(Reason.TOPIC_FILTER_INVALID, f"not a topic filter: {pattern[:100]!r}")
    for depth, level in enumerate(levels):
        last = depth == len(levels) - 1
        if ("#" in level and (level != "#" or not last)) or ("+" in level and level != "+"):
            raise MalformedPacket(Reason.TOPIC_FILTER_INVALID, f"misplaced wildcard in {pattern[:100]!r}")
    return pattern


def filter_levels(pattern: str) -> list[str]:
    """The levels of a filter without its ``$share/group/``; empty for a share without a group or filter."""
    if not pattern.startswith(SHARE):
        return pattern.split("/")
    group, _, rest = pattern[len(SHARE) :].partition("/")
    if not group or not rest or "+" in group or "#" in group:
        return []
    return rest.split("/")


def matches(levels: list[str], topic: str) -> bool:
    """Whether the filter with these levels takes ``topic``; a leading wildcard never takes ``$…`` topics."""
    names = topic.split("/")
    if topic.startswith("$") and levels[0] in ("+", "#"):
        return False
    for depth, level in enumerate(levels):
        if level == "#":
            return True
        if depth >= len(names) or (level != "+" and level != names[depth]):
            return False
    return len(levels) == len(names)
