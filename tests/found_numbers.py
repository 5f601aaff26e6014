"""Every file of a data folder read in every way it can be read, for numbers of persons that should not be there."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_RUN = re.compile(r"\d(?:[-. ()+]{0,2}\d){6,}")
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def numbers_in(text: str, wanted: Collection[str]) -> set[str]:
    """Those of ``wanted`` (digits) that a text holds, in digits of any form and with separators between."""
    plain = _ESCAPE.sub(lambda m: chr(int(m[1], 16)), text)
    plain = unicodedata.normalize("NFKC", plain)
    lengths = {len(number) for number in wanted}
    found: set[str] = set()
    for run in _RUN.findall(plain):
        digits = re.sub(r"\D", "", run)
        for length in lengths:
            windows = {digits[at : at + length] for at in range(len(digits) - length + 1)}
            found |= windows & set(wanted)
    return found


def numbers_on_disk(folders: Collection[Path], wanted: Collection[str]) -> dict[str, set[str]]:
    """Path below to what was found there, of every file: raw bytes, columns of Parquet, rows of SQLite."""
    found: dict[str, set[str]] = {}
    kinds: set[str] = set()
    for folder in folders:
        for path in sorted(p for p in ([folder] if folder.is_file() else folder.rglob("*")) if p.is_file()):
            kinds.add(path.suffix)
            hits: set[str] = set()
            with suppress(FileNotFoundError):  # a running engine replaces files
                for text in _texts(path):
                    hits |= numbers_in(text, wanted)
            if hits:
                found[str(path)] = hits
    assert {".parquet", ".journal", ".db"} <= kinds, kinds
    return found


def _texts(path: Path) -> Iterator[str]:
    # A journal is mostly room set aside.
    raw = re.sub(rb"\0{8,}", b"\n", path.read_bytes())
    yield raw.decode("utf-8", "replace")
    yield raw.decode("utf-16-le", "replace")
    if raw[:2] == b"\x1f\x8b":
        yield zlib.decompress(raw, 31).decode("utf-8", "replace")
    if path.suffix == ".parquet":
        for column in pq.read_table(path).columns:
            if pa.types.is_binary(column.type):
                yield "\n".join((value or b"").decode("utf-8", "replace") for value in column.to_pylist())
            elif pa.types.is_string(column.type):
                yield "\n".join(value or "" for value in column.to_pylist())
    if path.suffix == ".db":
        with sqlite3.connect(path) as db:
            yield "\n".join(db.iterdump())
