"""What a second of the city costs on its way to the lake: one group on disk, one hot file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from storage.batch import RawBatch, ReadingBatch
from storage.hot import HotTier
from storage.journal import Journal
from storage.records import RecordType, encode_readings
from storage.settings import JournalSettings

CITY = 116_200
GROUP = 1_162
"""Readings of one poll of 10 ms at the city's rate."""


def raw(n: int) -> RawBatch:
    """n readings of n points at one instant."""
    times = np.full(n, 1_790_000_000_000_000, np.int64)
    values = np.round(np.random.default_rng(1).normal(20, 5, n), 1)
    return RawBatch(np.arange(n, dtype=np.int32), times, times + 9_000, values, np.zeros(n, np.uint8))


def test_group_commit_of_10_ms_of_the_city(benchmark: Any, tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, JournalSettings())
    body = [(RecordType.READINGS, encode_readings(raw(GROUP)))]
    benchmark(lambda: journal.commit(body))
    journal.close()


def test_hot_file_of_one_second_of_the_city(benchmark: Any, tmp_path: Path) -> None:
    hot = HotTier(tmp_path)
    r = raw(CITY)
    judged = ReadingBatch(
        r.point, r.time, r.received_at, r.value, r.device_flag,
        np.ones(CITY, np.uint8), np.zeros(CITY, np.uint32), np.zeros(CITY, np.float32), np.arange(CITY),
    )  # fmt: skip
    nothing = judged.take(np.empty(0, np.intp))
    seq = itertools.count(1)

    def write() -> None:
        n = next(seq)
        hot.write(n, n, judged, nothing)

    benchmark(write)
