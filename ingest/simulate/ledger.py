"""The ledger: what was sent, when, and what was acknowledged, kept outside the engine.

Owns the ledger's files: ``points.parquet`` (number, point_id) and ``readings-*.parquet`` with one row a
reading that was produced and kept. The rows come from the arrays before they are encoded, so an error
in the encoder shows as a wrong or lost reading. Knows nothing of sockets or of the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.batch import F64, I32, I64, U8

QUEUED, SENT, ACKED, REFUSED, ABSENT = 0, 1, 2, 3, 4
"""State of a reading. REFUSED: acknowledged with an MQTT 5 reason that refuses it. ABSENT: never came to
be (its gateway was silent, or its backlog was full); it does not reach the file."""

SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("time_us", pa.int64()),
        ("value", pa.float64()),
        ("sent_us", pa.int64()),
        ("state", pa.uint8()),
    ]
)
ROWS_PER_FILE = 1_000_000
"""Settled rows are written when so many are there: about 30 MB of memory and one file every ten seconds."""


class Chunk:
    """Readings produced at one instant; speakers note here what becomes of them.

    number int32, time_us int64, value float64, sent_us int64 (0 not yet), state uint8: all [n]
    """

    __slots__ = ("_open", "number", "sent_us", "state", "time_us", "value")

    def __init__(self, number: I32, time_us: I64, value: F64) -> None:
        self.number = number
        self.time_us = time_us
        self.value = value
        self.sent_us: I64 = np.zeros(len(number), np.int64)
        self.state: U8 = np.zeros(len(number), np.uint8)
        self._open = len(number)

    def sent(self, begin: int, end: int, now_us: int, final: bool = False) -> None:
        """Rows begin … end were handed to the connection. ``final``: no acknowledgement follows (QoS 0)."""
        rows = slice(begin, end)
        self.sent_us[rows] = now_us
        self.state[rows] = SENT
        if final:
            self._open -= end - begin

    def settle(self, begin: int, end: int, state: int) -> None:
        """Rows begin … end reached their last state: ACKED, REFUSED or ABSENT. Each row settles once."""
        self.state[begin:end] = state
        self._open -= end - begin

    @property
    def settled(self) -> bool:
        """Nothing more will happen to any row."""
        return self._open == 0

    def __len__(self) -> int:
        return len(self.number)


class Ledger:
    """Collects chunks and writes the settled ones; ``close`` writes all.

    One writer each (``speaker`` names its files); readers wait for ``close``.
    """

    def __init__(self, folder: Path, speaker: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._speaker = speaker
        self._chunks: list[Chunk] = []
        self._rows = 0
        self._files = 0
        self.counts = {"sent": 0, "acked": 0, "refused": 0, "queued": 0}

    def open_chunk(self, number: I32, time_us: I64, value: F64) -> Chunk:
        """A new chunk; the arrays are kept, not copied."""
        chunk = Chunk(number, time_us, value)
        self._chunks.append(chunk)
        self._rows += len(chunk)
        if self._rows >= ROWS_PER_FILE:
            self._write_settled()
        return chunk

    def close(self) -> None:
        """Write everything that is left, in whatever state it is."""
        self._write(self._chunks)
        self._chunks = []

    def _write_settled(self) -> None:
        settled = [chunk for chunk in self._chunks if chunk.settled]
        if sum(len(chunk) for chunk in settled) >= ROWS_PER_FILE // 2:
            self._chunks = [chunk for chunk in self._chunks if not chunk.settled]
            self._write(settled)
        # With much unsettled (the engine is down) the next look comes after as many rows again.
        self._rows = 0

    def _write(self, chunks: Sequence[Chunk]) -> None:
        if not chunks:
            return
        columns = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in SCHEMA.names}
        kept = columns["state"] != ABSENT
        if not kept.all():
            columns = {name: column[kept] for name, column in columns.items()}
        tally = np.bincount(columns["state"], minlength=5)
        self.counts["queued"] += int(tally[QUEUED])
        self.counts["sent"] += int(tally[SENT] + tally[ACKED] + tally[REFUSED])
        self.counts["acked"] += int(tally[ACKED])
        self.counts["refused"] += int(tally[REFUSED])
        path = self._folder / f"readings-{self._speaker}-{self._files:05d}.parquet"
        # No dictionary and no compression: the writer runs beside what is being measured.
        # A missing value (NaN) is NULL in files: DuckDB trusts Parquet's statistics, which leave NaN out.
        table = pa.table([pa.array(columns[f.name], f.type, from_pandas=True) for f in SCHEMA], schema=SCHEMA)
        pq.write_table(table, path, compression="none", use_dictionary=False)
        self._files += 1


def write_points(folder: Path, number: I32, point_id: Sequence[str]) -> None:
    """The ledger's own map of numbers, ``points.parquet``; written once a run by who deals the points."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"number": pa.array(number, pa.int32()), "point_id": pa.array(point_id, pa.string())})
    pq.write_table(table, folder / "points.parquet")
