"""Which source a topic belongs to: the topic filters of all sources, as one tree of levels.

Owns the match and what a topic says of its readings (`{device}` and `{quantity}` in a filter). Knows no credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ingest.sourcesettings import SourceSettings

NAMES: Final = ("device", "quantity")
"""What may stand in braces, for one whole level."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A filter of a source. ``levels``: which level of a topic names the device, which the quantity; -1 none."""

    source: str
    device: int = -1
    quantity: int = -1


@dataclass(slots=True)
class _Node:
    below: dict[str, _Node] = field(default_factory=dict)
    owner: Owner | None = None
    """Of the filter that ends here."""
    rest: Owner | None = None
    """Of the filter that ends here with `#`."""


@dataclass(frozen=True, slots=True)
class Belongs:
    """A topic's source, and what the topic says; "" where it says nothing."""

    source: str
    device: str
    quantity: str


def plain_filter(pattern: str) -> str:
    """A filter as MQTT has it: `{device}` and `{quantity}` are `+`.

    >>> plain_filter("epb/{device}/data/{quantity}")
    'epb/+/data/+'
    """
    return "/".join("+" if level in _BRACED else level for level in pattern.split("/"))


_BRACED: Final = {f"{{{name}}}": name for name in NAMES}


def owner_of(settings: SourceSettings, pattern: str) -> Owner:
    """A source's filter with the levels that say something."""
    at = {_BRACED[level]: index for index, level in enumerate(pattern.split("/")) if level in _BRACED}
    for name in NAMES:
        said: str | None = getattr(settings, name)
        if said is not None and said.startswith("topic:"):
            at[name] = int(said.removeprefix("topic:"))
    return Owner(settings.name, at.get("device", -1), at.get("quantity", -1))


class SourceTopics:
    """All filters of all sources. The most literal filter wins: a name before `+`, `+` before `#`."""

    def __init__(self, sources: Iterable[SourceSettings]) -> None:
        self._root = _Node()
        for settings in sources:
            for pattern in settings.topics:
                self._add(pattern, owner_of(settings, pattern))

    def _add(self, pattern: str, owner: Owner) -> None:
        node = self._root
        for level in plain_filter(pattern).split("/"):
            if level == "#":
                node.rest = node.rest or owner
                return
            node = node.below.setdefault(level, _Node())
        node.owner = node.owner or owner

    def find(self, topic: str) -> Belongs | None:
        """Whose a topic is; None where it is nobody's. Topics that begin with `$` match no leading wildcard."""
        levels = topic.split("/")
        for owner in self._matching(self._root, levels, 0):
            return Belongs(owner.source, _level(levels, owner.device), _level(levels, owner.quantity))
        return None

    def _matching(self, node: _Node, levels: list[str], depth: int) -> Iterator[Owner]:
        """Owners of filters that take the topic, the most literal first. Depth is bounded by the filters'."""
        if depth == len(levels):
            if node.owner is not None:
                yield node.owner
        else:
            wild = depth > 0 or not levels[0].startswith("$")
            for step in (levels[depth], "+") if wild else (levels[depth],):
                if step in node.below:
                    yield from self._matching(node.below[step], levels, depth + 1)
            if not wild:
                return
        if node.rest is not None:
            yield node.rest


def _level(levels: list[str], index: int) -> str:
    return levels[index] if 0 <= index < len(levels) else ""
