"""Texts lie in columns: found by number and by name as lists and dicts would, without a Python object each."""

from __future__ import annotations

import gc
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ingest.config import Config
from ingest.routes import Routes
from storage.fast import IS_COMPILED
from storage.pointmap import merge
from storage.texts import Numbers, Repeated, Texts, coded
from tests.storage_rows import registry

SEED = 20_261_127
OBJECT_BYTES_MAX = 4.0
"""A point. A list has eight bytes for each of its entries, so this says that there is not even one such list."""


def some_texts(rng: random.Random, n: int) -> list[str]:
    letters = "ab0-/水位é𠀀"
    return ["".join(rng.choices(letters, k=rng.randint(0, 12))) for _ in range(n)]


@pytest.mark.parametrize("n", [0, 1, 9, 3_000])
def test_they_answer_as_a_list_and_a_dict_would(n: int) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED + n)
    given = some_texts(rng, n)
    texts = Texts.of(given)
    assert list(texts) == given == [texts[k] for k in range(n)] == texts[:]
    assert texts == given
    assert texts[1:-1] == given[1:-1]
    numbers, dictionary = Numbers(texts), {text: k for k, text in enumerate(given) if text}
    asked = [*given, *some_texts(rng, 200), "", "\ud800"]
    assert [numbers.get(text) for text in asked] == [dictionary.get(text) for text in asked]
    assert [text in numbers for text in asked] == [text in dictionary for text in asked]
    for text in asked[:50]:
        assert texts.where(text).tolist() == [k for k, one in enumerate(given) if one == text]
    codes = texts.codes().tolist()
    assert [given[codes.index(code)] for code in codes] == given, "the same code for the same text"


def test_ends_of_columns_and_of_lists_agree() -> None:
    texts = Texts.of(["甲", "", "乙b"])
    assert texts[-1] == "乙b"
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            texts[beyond]
    with pytest.raises(KeyError):
        Numbers(texts)["丙"]
    assert None not in Numbers(texts)
    part = pa.chunked_array([["x", None, "甲"], ["乙"]]).slice(1)
    assert list(Texts.of(part)) == ["", "甲", "乙"]
    assert Texts.of(texts) is texts


def test_codes_lead_to_sorted_names() -> None:
    codes, names = coded(pa.chunked_array([["mm", None], ["cm", "mm"]]))
    assert names == ["", "cm", "mm"]
    unit = Repeated(codes, names)
    assert list(unit) == ["mm", "", "cm", "mm"]
    assert unit[np.int32(2)] == "cm"
    assert unit[1:3] == ["", "cm"]


def whole(folder: Path, incoming: pa.Table) -> tuple[Any, ...]:
    """A registry as an engine holds it, with its ways of decoding."""
    from ingest.decode.shortway import ShortWay  # needs numba

    points = merge(folder, incoming, 0)
    routes = Routes(points, Config())
    return points, routes, ShortWay(routes), points.number_of()


def object_bytes(folder: Path, n: int) -> int:
    """Bytes of the Python objects, numpy's arrays apart, that hold a registry of ``n`` points on one gateway."""
    incoming = registry(n)
    at = incoming.column_names.index("gateway_id")
    incoming = incoming.set_column(at, "gateway_id", pa.repeat("one", n))
    whole(folder, incoming)  # what is imported and compiled once is not the registry's
    gc.collect()
    tracemalloc.start()
    try:
        held = whole(folder, incoming)
        gc.collect()
        arrays = tracemalloc.DomainFilter(False, np.lib.tracemalloc_domain)
        seen = tracemalloc.take_snapshot().filter_traces([arrays])
    finally:
        tracemalloc.stop()
    assert len(held[0]) == n
    assert held[3]["p-00007"] >= 0
    return sum(trace.size for trace in seen.traces)


@pytest.mark.skipif(not IS_COMPILED, reason="the tables for decoding need numba")
def test_no_object_is_kept_for_a_point(tmp_path: Path) -> None:
    """What two sizes of one registry differ by, for each point."""
    few, many = 10_000, 30_000
    grown = object_bytes(tmp_path / "many", many) - object_bytes(tmp_path / "few", few)
    assert grown / (many - few) < OBJECT_BYTES_MAX
