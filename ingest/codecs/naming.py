"""Names in payloads to (device, quantity) and back: patterns that take a name apart, templates that put one together.

Owns their grammar. Knows nothing of any format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ingest.codecs.base import Key

if TYPE_CHECKING:
    from ingest.sourcesettings import SourceSettings

_PLACE = re.compile(r"\{([^{}]*)\}")
_LAST_PART: Final = re.compile(r"(.*)[:/](.*)", re.DOTALL)


class NamePattern:
    """Takes one name apart: "urn:dev:{device}:{quantity}".

    ``{device}`` is as long as it can be, so that ``{quantity}`` is what follows the last of the text between them.
    Raises ValueError for a pattern without either, with one of them twice, or with nothing between them.

    >>> NamePattern("urn:dev:{device}:{quantity}").key("urn:dev:mac:01:temp")
    ('mac:01', 'temp')
    """

    def __init__(self, pattern: str) -> None:
        places = _PLACE.findall(pattern)
        if not places or set(places) - {"device", "quantity"} or len(set(places)) != len(places):
            raise ValueError(f'"{pattern}": expected {{device}} and {{quantity}}, each at most once')
        if "}{" in pattern:
            raise ValueError(f'"{pattern}": nothing tells {{device}} and {{quantity}} apart')
        parts = _PLACE.split(pattern)
        # split gives text, place, text, place, …
        shape = "".join(re.escape(p) if i % 2 == 0 else f"(?P<{p}>.+)" for i, p in enumerate(parts))
        self._shape = re.compile(shape, re.DOTALL)
        self.pattern = pattern

    def key(self, name: str) -> Key | None:
        """Device and quantity ("" where the pattern has none); None for a name of another form."""
        found = self._shape.fullmatch(name)
        if found is None:
            return None
        parts = found.groupdict()
        return parts.get("device", ""), parts.get("quantity", "")


def split_name(name: str) -> Key:
    """Device and quantity of a name nobody gave a pattern for: the quantity follows the last ":" or "/".

    >>> split_name("urn:dev:mac:01/temp"), split_name("temp")
    (('urn:dev:mac:01', 'temp'), ('temp', ''))
    """
    found = _LAST_PART.fullmatch(name)
    if found is None or not found[1] or not found[2]:
        return name, ""
    return found[1], found[2]


class Template:
    """Puts a name together: "{tag:station}-{measurement}". Raises ValueError for unknown places."""

    def __init__(
        self, text: str, known: tuple[str, ...] = ("measurement", "series", "field", "tag:")
    ) -> None:
        parts = _PLACE.split(text)
        self._parts = parts
        self.places = parts[1::2]
        for place in self.places:
            if place not in known and not any(k.endswith(":") and place.startswith(k) for k in known):
                names = ", ".join("{%s}" % (k + "NAME" if k.endswith(":") else k) for k in known)
                raise ValueError(f'"{text}": {{{place}}} is none of {names}')

    def fill(self, values: Mapping[str, str]) -> str:
        """The name. Raises KeyError with the place that has no value."""
        return "".join(p if i % 2 == 0 else values[p] for i, p in enumerate(self._parts))


class Ignored:
    """Whether a name is one of a list; an entry that ends with ``*`` stands for every name that begins so."""

    def __init__(self, names: list[str]) -> None:
        self._names = frozenset(n for n in names if not n.endswith("*"))
        self._starts = tuple(n[:-1] for n in names if n.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._names or name.startswith(self._starts)


def device_in_topic(settings: SourceSettings) -> bool:
    """Whether the topic names the device, so that payloads need not."""
    if settings.device is not None:
        return settings.device.startswith("topic:")
    return any("{device}" in topic for topic in settings.topics)
