"""The registry as the decoding kernel wants it: routes, sources and points as tables.

Owns which sources and topics have a short way, and what of their settings a kernel must know. What has
none, or is refused, is left to the general decoder message by message. Needs numba: import it only where
``ingest.kernels.compiling.IS_COMPILED``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ingest.decode.columns import Columns, Rows
from ingest.decode.packway import PackWay
from ingest.decode.zones import DAYS_MAX, steady_span
from ingest.kernels.decode import (
    FIELD_BYTES,
    FIELDS,
    NAME_BYTES_MAX,
    R_GATEWAY,
    R_ON_RECEIPT,
    R_POINT,
    R_SOURCE,
    ROUTE_FIELDS,
    Points,
    Sources,
    decode_messages,
)
from ingest.kernels.grammar import (
    BARE,
    DEPTH_MAX,
    MISSING,
    MISSING_MAX,
    MISSINGS,
    NEWEST,
    OLDEST,
    PAYLOAD_MAX,
    READINGS_MAX,
    SCALE,
    SOURCE_FIELDS,
    ZONE_FROM,
    ZONE_TO,
    ZONE_US,
)
from ingest.kernels.tables import Pairs, fill_texts, texts_of
from ingest.kernels.tables import Texts as TextTable
from ingest.kernels.words import SLACK
from ingest.mqtt.arena import Arena
from ingest.routes import OPEN_US, Routes, Source
from storage.batch import I32, I64, U8, Bool
from storage.points import TIME_FROM_RECEIVE
from storage.texts import SLACK as COLUMN_SLACK
from storage.texts import Texts

ROWS_BEGIN = 65_536
US_PER_DAY = 86_400_000_000
ZONES_AGAIN_US = 3_600_000_000
"""How long a zone's span is used before it is looked up around the new hour."""


def names_of(source: Source) -> list[bytes] | None:
    """A source's field names (time, value, id, flag) where a kernel can look for them, else None."""
    if source.codec is not None or source.rate is not None:
        return None
    settings = source.settings
    names = [settings.time_field, settings.value_field, settings.id_field, settings.flag_field]
    paths = (source.time_path, source.value_path, source.id_path, source.flag_path)
    if source.readings_path or any(len(path) != 1 for path in paths) or len(set(names)) != FIELDS:
        return None
    if len(settings.missing_values) > MISSING_MAX:
        return None
    found = [name.encode() for name in names if name.isprintable()]
    plain = all(0 < len(name) <= NAME_BYTES_MAX and not set(b'"\\') & set(name) for name in found)
    return found if plain and len(found) == FIELDS else None


def table_of(column: Texts, more: Sequence[bytes] = ()) -> TextTable:
    """A kernel's table of a column of texts: in the column's own memory, or in a copy with ``more`` behind them."""
    assert SLACK <= COLUMN_SLACK
    at, pool = column.at, column.pool
    if more:
        behind = texts_of(more)
        at, pool = np.concatenate([at, behind.at[1:] + at[-1]]), np.concatenate([pool[: at[-1]], behind.pool])
    slots = np.zeros(1 << max(4, (2 * (len(at) - 1)).bit_length()), np.uint64)
    fill_texts(slots, at, pool)
    return TextTable(slots, at, pool)


class ShortWay:
    """One registry's tables. ``set_window`` before each poll's messages; ``allowed`` grows as credentials speak."""

    def __init__(self, routes: Routes) -> None:
        self._sources = list(routes.sources.values())
        self._zones_at = -ZONES_AGAIN_US
        self.allowed = Pairs()
        self.sources = self._compile_sources()
        self.packs = PackWay(routes, self.sources.numbers)
        points = routes.points
        code_of = {source.name: code for code, source in enumerate(self._sources)}
        code = np.array([code_of[name] for name in points.sources], np.int32)[points.source]
        retired = np.asarray(points.retired)
        on_receipt = (points.time_from == TIME_FROM_RECEIVE).astype(np.uint8)
        self.topics, self.routes = self._compile_routes(routes, code, self._has_way, retired, on_receipt)
        self.points = Points(
            table_of(Texts.of(points.point_id)),
            np.where(retired, -1, points.gateway).astype(np.int32),
            on_receipt,
        )

    def _compile_sources(self) -> Sources:
        count = len(self._sources)
        names = np.zeros((count, FIELDS, FIELD_BYTES), np.uint8)
        numbers = np.zeros((count, SOURCE_FIELDS), np.int64)
        self._has_way = np.zeros(count, np.bool_)
        self._age_us, self._ahead_us = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for s, source in enumerate(self._sources):
            settings = source.settings
            self._age_us[s] = round(settings.age_s_max * 1e6)
            self._ahead_us[s] = round(settings.ahead_s_max * 1e6)
            numbers[s, SCALE] = source.time_scale
            numbers[s, BARE] = settings.bare_numbers
            numbers[s, PAYLOAD_MAX] = settings.message_bytes_max
            numbers[s, READINGS_MAX] = settings.readings_per_message_max
            numbers[s, DEPTH_MAX] = settings.depth_max
            found = names_of(source)
            if found is None:
                continue
            self._has_way[s] = True
            for k, name in enumerate(found):
                names[s, k, : len(name)] = np.frombuffer(name, np.uint8)
                names[s, k, NAME_BYTES_MAX] = len(name)
            codes = np.array(settings.missing_values)
            numbers[s, MISSINGS] = len(codes)
            numbers[s, MISSING : MISSING + len(codes)] = codes.view(np.int64)
        return Sources(names, numbers)

    @staticmethod
    def _compile_routes(
        routes: Routes,
        code: I32,
        has_way: Bool,
        retired: Bool,
        on_receipt: U8,
    ) -> tuple[TextTable, I32]:
        """One route for each point's own topic, in the points' order, then the gateways'."""
        points = routes.points
        topics = Texts.of(points.topic)
        gateways = list(routes.gateway_topics())
        made = np.full((len(topics) + len(gateways), ROUTE_FIELDS), -1, np.int32)
        own = made[: len(topics)]
        own[:, R_POINT] = np.arange(len(topics))
        own[:, R_SOURCE] = np.where(has_way[code] & ~retired, code, -1)
        own[:, R_ON_RECEIPT] = on_receipt
        source_of = {name: s for s, name in enumerate(routes.sources)}
        for k, (_, gateway, name) in enumerate(gateways, len(topics)):
            made[k, R_GATEWAY] = gateway
            made[k, R_SOURCE] = source_of[name] if has_way[source_of[name]] else -1
            made[k, R_ON_RECEIPT] = 0
        return table_of(topics, [topic for topic, _, _ in gateways]), made

    def set_window(self, now_us: int, *, open_ended: bool) -> None:
        """Move every source's time window. While our clock is suspect nothing outside it is taken here either:
        the general decoder knows what to do with it."""
        numbers = self.sources.numbers
        if open_ended:
            numbers[:, OLDEST], numbers[:, NEWEST] = OPEN_US
        else:
            np.subtract(now_us, self._age_us, out=numbers[:, OLDEST])
            np.add(now_us, self._ahead_us, out=numbers[:, NEWEST])
        if not 0 <= now_us - self._zones_at < ZONES_AGAIN_US:
            self._zones_at = now_us
            self._look_at_zones(now_us, DAYS_MAX * US_PER_DAY if open_ended else None)

    def _look_at_zones(self, now_us: int, back_us: int | None) -> None:
        """As far as the sources' time windows reach, or ``back_us``; what lies beyond is not taken here."""
        spans: dict[str, tuple[int, int, int]] = {}
        numbers: I64 = self.sources.numbers
        back = int(self._age_us.max(initial=0)) if back_us is None else back_us
        ahead = int(self._ahead_us.max(initial=0))
        for s, source in enumerate(self._sources):
            if source.zone.key not in spans:
                spans[source.zone.key] = steady_span(source.zone, now_us, back, ahead + ZONES_AGAIN_US)
            numbers[s, ZONE_US], numbers[s, ZONE_FROM], numbers[s, ZONE_TO] = spans[source.zone.key]

    def decode(self, arena: Arena[Any], facts: I32, order: I32, columns: Columns) -> tuple[I32, I32]:
        """Add the readings of the messages ``order`` of an arena to ``columns.rows``.

        facts   int32 [segments, 2]: number of each one's credential (0: none asked for), whether a broker's
        Returns the messages left, in their order, and for each 0, or one more than the route for which
        nobody asked yet whether its credential may use it.
        """
        count = len(order)
        left, asked = np.empty(count, np.int32), np.empty(count, np.int32)
        done = lefts = 0
        while True:
            rows = columns.rows
            done, columns.filled, lefts = decode_messages(
                arena.buffer,
                arena.messages,
                arena.heads,
                order,
                done,
                count,
                facts,
                self.topics,
                self.routes,
                self.allowed.slots,
                self.sources,
                self.points,
                rows.point,
                rows.time,
                rows.value,
                rows.device_flag,
                rows.message,
                columns.filled,
                left,
                asked,
                lefts,
            )
            if done == count:
                return left[:lefts], asked[:lefts]
            columns.rows = rows.grown() if len(rows) else Rows.room(ROWS_BEGIN)

    def permit(self, credentials: list[int], routes: list[int]) -> None:
        """Remember that these credentials may publish on these routes, pair by pair."""
        self.allowed.add(Pairs.of(credentials, routes))
