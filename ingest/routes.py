"""From a topic to what its payload means and whether its publisher may say it.

Owns the identity of readings: it comes from the topic and its credential, never from the payload
alone. Knows nothing of payload bytes (ingest.decode) or sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np

from ingest.codecs.base import Codec, Common, CommonCodec
from ingest.codecs.binding import Binding, KeyTable
from ingest.codecs.table import make_codec
from ingest.config import Config, SourceSettings
from ingest.decode.times import US_PER_UNIT
from ingest.ratelimit import RateLimit
from ingest.sourcetopics import Belongs, SourceTopics
from storage.points import TIME_FROM_RECEIVE, PointTable
from storage.texts import Numbers, Texts

OPEN_US = (0, 7_258_118_400_000_000)
"""1970 to 2200, µs."""
REFUSED_CACHED_MAX = 10_000
"""Refused topics remembered for one credential: a flood of invented topics must not fill memory."""
LEARNED_MIN = 10_000
"""Topics of sources' filters remembered for one credential, beside one for each point: whoever publishes to a filter
such as "up/#" chooses how many there are. Beyond it they are forgotten and found again."""


@dataclass(slots=True)
class Source:
    """A source's settings, ready for the decoder.

    codec, binding  how its payloads are read and whose they are; None where it speaks the plain JSON form
    common       the codec's short way; None where it has none or readings are counted against a rate
    time_scale   µs a unit of numeric time; 0 where the fast path must not multiply (ns)
    *_path       field paths split at dots
    oldest, newest  the time window in the source's own unit, set anew for each poll
    """

    name: str
    settings: SourceSettings
    zone: ZoneInfo
    time_scale: int
    id_path: tuple[str, ...]
    time_path: tuple[str, ...]
    value_path: tuple[str, ...]
    flag_path: tuple[str, ...]
    readings_path: tuple[str, ...]
    flat: bool
    codec: Codec | None = None
    common: Callable[[bytes], Common | None] | None = None
    binding: Binding | None = None
    rate: RateLimit | None = None
    oldest_us: int = 0
    newest_us: int = 0
    oldest: int = 0
    newest: int = 0
    lenient: bool = False
    """Our own clock is suspect: what is outside the window is kept with flag 2 and not refused."""

    def use(self, codec: Codec | None, rate: RateLimit | None) -> None:
        """Read with this codec from here on."""
        self.codec, self.rate = codec, rate
        self.common = _common_of(codec) if rate is None else None

    def set_window(self, now_us: int) -> None:
        """Readings are taken from age_s_max before to ahead_s_max after ``now_us``."""
        self.oldest_us = now_us - round(self.settings.age_s_max * 1e6)
        self.newest_us = now_us + round(self.settings.ahead_s_max * 1e6)
        scale = self.time_scale or 1
        self.oldest = -(-self.oldest_us // scale)
        self.newest = self.newest_us // scale

    def open_window(self) -> None:
        """Take any time from 1970 to 2200: recordings and drills, where the newest event is "now"."""
        self.oldest_us, self.newest_us = OPEN_US
        scale = self.time_scale or 1
        self.oldest, self.newest = 0, self.newest_us // scale


@dataclass(slots=True)
class Route:
    """Where a topic leads.

    point    dense number of the one point of this topic; -1 for a gateway's topic or a refusal
    gateway  code of the gateway whose readings carry their ids; -1 otherwise
    refusal  reason of quarantine, or "" where publishing is right
    fast     one flat object with a numeric time is likely: the decoder may take its short way
    device, quantity  what the topic says of its readings, "" where it says nothing
    keys     what the source's own words stand for on this topic; None where the source has no binding
    """

    point: int
    gateway: int
    source: Source
    refusal: str = ""
    fast: bool = False
    timed_on_receipt: bool = False
    device: str = ""
    quantity: str = ""
    keys: KeyTable | None = None

    @property
    def listed(self) -> bool:
        """Whether the registry lists the topic."""
        return self.point >= 0 or self.gateway >= 0


class RouteTable(dict[bytes, Route]):
    """Routes of one credential, resolved at a topic's first message and then one dict look-up."""

    def __init__(self, resolve: Callable[[bytes], Route], learned_max: int) -> None:
        super().__init__()
        self._resolve = resolve
        self._refused = 0
        self._learned = 0
        self._learned_max = learned_max

    def __missing__(self, topic: bytes) -> Route:
        route = self._resolve(topic)
        if route.listed:
            self[topic] = route
        elif not route.refusal:
            if self._learned >= self._learned_max:
                self._forget_learned()
            self._learned += 1
            self[topic] = route
        elif self._refused < REFUSED_CACHED_MAX:
            self._refused += 1
            self[topic] = route
        return route

    def _forget_learned(self) -> None:
        for topic in [topic for topic, route in self.items() if not (route.listed or route.refusal)]:
            del self[topic]
        self._learned = 0


def _common_of(codec: object) -> Callable[[bytes], Common | None] | None:
    return codec.common if isinstance(codec, CommonCodec) else None


def compile_source(settings: SourceSettings, city_zone: str) -> Source:
    """A source ready for the decoder; its zone is the city's where it names none."""
    paths = [settings.id_field, settings.time_field, settings.value_field, settings.flag_field]
    scale = US_PER_UNIT.get(settings.time_unit, 0)
    plain = not settings.mapped and settings.rate_max_per_s is None and not settings.missing_values
    flat = plain and all("." not in p for p in paths) and not settings.readings_field
    zone = ZoneInfo(settings.time_zone or city_zone)
    source = Source(
        name=settings.name,
        settings=settings,
        zone=zone,
        time_scale=scale,
        id_path=tuple(settings.id_field.split(".")),
        time_path=tuple(settings.time_field.split(".")),
        value_path=tuple(settings.value_field.split(".")),
        flag_path=tuple(settings.flag_field.split(".")),
        readings_path=tuple(settings.readings_field.split(".")) if settings.readings_field else (),
        flat=flat and scale > 0,
    )
    source.use(
        make_codec(settings.codec, settings, zone) if settings.mapped else None,
        None if settings.rate_max_per_s is None else RateLimit(settings.rate_max_per_s),
    )
    return source


class Routes:
    """All topics of the registry. One instance per registry; RouteTables are made from it."""

    def __init__(self, points: PointTable, config: Config) -> None:
        self.points = points
        declared = {s.name: s for s in config.source}
        names = list(dict.fromkeys([*declared, *points.sources]))
        self.sources = {
            n: compile_source(declared.get(n) or SourceSettings(name=n), config.city.time_zone) for n in names
        }
        self.nowhere = compile_source(SourceSettings(name="unknown"), config.city.time_zone)
        self._point_of = Numbers(Texts.of(points.topic))
        self._gateway_of = dict(self._gateway_topics(points, config.source))
        self.number_of = points.number_of()
        for source in self.sources.values():
            if source.codec is not None:
                source.binding = Binding(source.settings, points, self.number_of)
        self._topics = SourceTopics(config.source)
        self.some_personal = any(source.personal for source in config.source)
        self._tables: dict[str | None, RouteTable] = {}

    @staticmethod
    def _gateway_topics(
        points: PointTable, sources: Iterable[SourceSettings]
    ) -> Iterable[tuple[bytes, tuple[int, str]]]:
        of_source: dict[int, set[int]] = {}
        pairs = np.unique(np.stack([points.source, points.gateway]), axis=1)
        for source, gateway in pairs.T.tolist():
            of_source.setdefault(source, set()).add(gateway)
        code = {name: i for i, name in enumerate(points.sources)}
        for settings in sources:
            if settings.gateway_topic is None or settings.name not in code:
                continue
            for gateway in of_source.get(code[settings.name], ()):
                if points.gateways[gateway]:
                    topic = settings.gateway_topic.replace("{gateway}", points.gateways[gateway])
                    yield topic.encode(), (gateway, settings.name)

    def gateway_topics(self) -> Iterator[tuple[bytes, int, str]]:
        """Topics on which gateways bring readings of many points: topic, gateway, source's name."""
        for topic, (gateway, source) in self._gateway_of.items():
            yield topic, gateway, source

    def table(self, credential: str | None, allows: Callable[[str, str], bool]) -> RouteTable:
        """The routes of a credential (None: anonymous or a subscriber, allowed everything)."""
        if credential not in self._tables:

            def resolve(topic: bytes) -> Route:
                if credential is None:
                    return self._route(topic)
                if not allows(credential, topic.decode(errors="replace")):
                    return Route(-1, -1, self._nearest(topic), "not_allowed")
                route = self._route(topic)
                only = route.source.settings.credential
                return route if only in (None, credential) else Route(-1, -1, route.source, "not_allowed")

            self._tables[credential] = RouteTable(resolve, LEARNED_MIN + len(self.points))
        return self._tables[credential]

    def of_source(self, name: str) -> Route:
        """Where everything leads that comes in by a source's own door, whatever it calls itself."""
        source = self.sources[name]
        return self._bound(Route(-1, -1, source))

    def settings_of(self, name: str) -> SourceSettings:
        """Of a source by its name; those of nobody's topics for any other."""
        return self.sources.get(name, self.nowhere).settings

    def keep(self, before: Routes) -> None:
        """Where settings agree, go on with what the codecs of ``before`` were told (aliases) and with its rates."""
        for name, source in self.sources.items():
            old = before.sources.get(name)
            if old is not None and old.settings == source.settings and old.zone == source.zone:
                source.use(old.codec, old.rate)

    def _route(self, topic: bytes) -> Route:
        point = self._point_of.find(topic)
        if point is not None:
            source = self.sources[self.points.sources[self.points.source[point]]]
            if self.points.retired[point]:
                return Route(-1, -1, source, "retired_point")
            on_receipt = int(self.points.time_from[point]) == TIME_FROM_RECEIVE
            return self._bound(Route(point, -1, source, fast=source.flat, timed_on_receipt=on_receipt))
        gateway = self._gateway_of.get(topic)
        if gateway is not None:
            return self._bound(Route(-1, gateway[0], self.sources[gateway[1]]))
        belongs = self._belongs(topic)
        if belongs is not None:
            source = self.sources[belongs.source]
            return self._bound(Route(-1, -1, source, device=belongs.device, quantity=belongs.quantity))
        return Route(-1, -1, self.nowhere, "unknown_topic")

    @staticmethod
    def _bound(route: Route) -> Route:
        """With the table of its keys, where its source has a binding."""
        if route.source.binding is not None:
            route.keys = route.source.binding.keys_for(route)
        return route

    def _belongs(self, topic: bytes) -> Belongs | None:
        return self._topics.find(topic.decode(errors="replace"))

    def _nearest(self, topic: bytes) -> Source:
        """The source a refused topic would have belonged to, so that its owner sees the refusal."""
        point = self._point_of.find(topic)
        if point is not None:
            return self.sources[self.points.sources[self.points.source[point]]]
        gateway = self._gateway_of.get(topic)
        if gateway is not None:
            return self.sources[gateway[1]]
        belongs = self._belongs(topic)
        return self.sources[belongs.source] if belongs is not None else self.nowhere

    def set_window(self, now_us: int, *, open_ended: bool = False, lenient: bool = False) -> None:
        """Move every source's time window; called once a poll. ``lenient`` as in Source."""
        for source in (*self.sources.values(), self.nowhere):
            source.lenient = lenient
            if open_ended:
                source.open_window()
            else:
                source.set_window(now_us)


def at_path(body: Mapping[str, object], path: tuple[str, ...]) -> tuple[bool, object]:
    """(found, value) at a field path of nested objects."""
    found: object = body
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return False, None
        found = found[key]
    return True, found
