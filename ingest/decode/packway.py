"""What kernels know of sources with a codec: topics, who may use them, and what names in payloads stand for.

Owns these tables. All of it was learned from messages that the codec read and the binding took without a refusal; so a
kernel knows nothing that they would say otherwise, and what it does not know goes to them. Needs numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ingest.codecs.base import SpokenCodec
from ingest.codecs.binding import Bound, KeyTable
from ingest.decode.columns import Columns, Rows
from ingest.decode.trees import trees_of
from ingest.kernels.heard import (
    CODES_MAX,
    H_FACTOR,
    H_MISSING,
    H_MISSINGS,
    H_OFFSET,
    H_ON_RECEIPT,
    H_PLAIN,
    HOW_FIELDS,
    SPOKEN_BYTES_MAX,
    TEXTS_MAX,
    Heard,
    no_bounds,
)
from ingest.kernels.mapped import O_ARRAY, O_OBJECT, STAGE_FIELDS, STAGE_ROWS
from ingest.kernels.packs import CHANNEL_FIELDS, MAPPED, SENML, decode_packs
from ingest.kernels.senml import TABLE_BYTES
from ingest.kernels.tables import Pairs
from ingest.mqtt.arena import Arena
from ingest.routes import Route, Routes, Source
from storage.batch import I32, I64, Bool

ROWS_BEGIN: Final = 65_536
TOPICS_MIN: Final = 1 << 17
"""Topics learned beside two for each point; a publisher of a filter such as "up/#" chooses how many there are."""
FORMS: Final = {"senml": SENML, "json": MAPPED}
"""Codecs that have a kernel."""


def speech_of(source: Source) -> SpokenCodec | None:
    """The codec of a source whose messages a kernel may read: none whose readings are counted against a rate."""
    codec: object = source.codec
    free = source.settings.codec in FORMS and source.rate is None
    return codec if free and isinstance(codec, SpokenCodec) else None


class PackWay:
    """One registry's learned tables; ``numbers`` are its sources' (ingest.decode.shortway)."""

    def __init__(self, routes: Routes, numbers: I64) -> None:
        self._numbers = numbers
        self._source_code = {name: code for code, name in enumerate(routes.sources)}
        self._trees = trees_of([(source.codec, source.settings) for source in routes.sources.values()])
        self._stage: I64 = np.zeros((STAGE_ROWS, STAGE_FIELDS), np.int64)
        grown = np.max(self._trees.origins[:, [O_OBJECT, O_ARRAY]], axis=1, initial=-1).tolist()
        self._speech = {
            name: speech_of(source)
            for (name, source), tree in zip(routes.sources.items(), grown, strict=True)
            if tree >= 0 or source.settings.codec != "json"
        }
        self._some = any(self._speech.values())
        self._topics_max = TOPICS_MIN + 2 * len(routes.points)
        self._topics, self._names = Heard(), Heard()
        self._forget()

    def _forget(self) -> None:
        """Begin anew: what was learned is learned again from the next messages."""
        self._topics.clear()
        self._names.clear()
        self._channels: I32 = np.zeros((1 << 9, CHANNEL_FIELDS), np.int32)
        self._allowed = Pairs()
        self._tables: dict[int, tuple[int, KeyTable]] = {}
        self._bounds, self._hows = no_bounds()
        self._stamps: I64 = np.zeros(1 + len(self._bounds), np.int64)
        self._how_of: dict[tuple[float, float, frozenset[float], bool], int] = {}

    def decode(
        self, arena: Arena[Any], facts: I32, order: I32, received_at: int, columns: Columns
    ) -> tuple[I32, Bool, int]:
        """Add the readings of the messages ``order`` of an arena to ``columns.rows``.

        facts   as in ShortWay.decode
        Returns the messages left, in their order; of each, whether to ``learn`` from it once it is read; and how many
        readings were timed by their receipt.
        """
        if not self._some:
            return order, np.zeros(len(order), np.bool_), 0
        left, whys = np.empty(len(order), np.int32), np.empty(len(order), np.uint8)
        done = lefts = timed = 0
        begin = columns.filled
        while True:
            rows = columns.rows
            done, columns.filled, lefts, more = decode_packs(
                arena.buffer,
                arena.messages,
                arena.heads,
                order,
                done,
                facts,
                self._topics.texts,
                self._channels,
                self._allowed.slots,
                self._numbers,
                self._names.texts,
                self._names.count,
                self._bounds,
                self._hows,
                self._trees,
                self._stage,
                self._stamps,
                received_at,
                rows.point,
                rows.time,
                rows.value,
                rows.device_flag,
                rows.message,
                columns.filled,
                left,
                whys,
                lefts,
            )
            timed += more
            if done == len(order):
                break
            columns.rows = rows.grown() if len(rows) else Rows.room(ROWS_BEGIN)
        if begin < columns.filled and begin and rows.message[begin] < rows.message[begin - 1]:
            columns.mixed = True
        return left[:lefts], whys[:lefts] != 0, timed

    def learn(self, route: Route, topic: bytes, credential: int, payload: bytes) -> None:
        """Remember the topic, who used it, and the names of a message of which no reading was refused."""
        source, keys = route.source, route.keys
        codec = self._speech.get(source.name)
        if route.refusal or keys is None or codec is None:
            return
        spoken = codec.spoken(payload)
        if self._topics.count >= self._topics_max or self._names.count + len(spoken) > TEXTS_MAX:
            self._forget()
        table = self._tables.setdefault(id(keys), (len(self._tables), keys))[0]
        (channel,) = self._topics.add([topic])
        if channel < 0:
            return
        self._channels = _roomy(self._channels, channel + 1)
        self._channels[channel] = self._source_code[source.name], table, FORMS[source.settings.codec]
        if credential:
            self._allowed.add(Pairs.of([credential], [channel]))
        self._learn_names(table, [(name, keys[key]) for name, key in spoken])

    def _learn_names(self, table: int, spoken: Sequence[tuple[bytes, Bound]]) -> None:
        known = [
            (name, bound)
            for name, bound in spoken
            if bound.refused is None and TABLE_BYTES + len(name) <= SPOKEN_BYTES_MAX
        ]
        if not known:
            return
        before = table.to_bytes(TABLE_BYTES, "little")
        numbers = self._names.add([before + name for name, _ in known])
        self._bounds = _roomy(self._bounds, self._names.count)
        if len(self._stamps) <= len(self._bounds):
            more = np.zeros(1 + len(self._bounds) - len(self._stamps), np.int64)
            self._stamps = np.concatenate([self._stamps, more])
        for number, (_, bound) in zip(numbers, known, strict=True):
            if number >= 0:
                fits = len(bound.missing) <= CODES_MAX
                self._bounds[number] = (bound.point, self._how(bound)) if fits else (-1, 0)

    def _how(self, bound: Bound) -> int:
        """The number of how a point's values are converted."""
        key = (bound.factor, bound.offset, bound.missing, bound.on_receipt)
        known = self._how_of.get(key)
        if known is None:
            known = self._how_of[key] = len(self._how_of)
            row = np.zeros((1, HOW_FIELDS), np.int64)
            codes = sorted(bound.missing)
            row[0, H_PLAIN], row[0, H_ON_RECEIPT] = bound.plain, bound.on_receipt
            row[0, H_FACTOR : H_OFFSET + 1] = np.array([bound.factor, bound.offset]).view(np.int64)
            row[0, H_MISSINGS] = len(codes)
            row[0, H_MISSING : H_MISSING + len(codes)] = np.array(codes, np.float64).view(np.int64)
            self._hows = np.concatenate([self._hows, row])
        return known


def _roomy(table: I32, rows: int) -> I32:
    """The same table with room for ``rows``."""
    if rows <= len(table):
        return table
    return np.concatenate([table, np.zeros((max(rows, len(table)), table.shape[1]), np.int32)])
