"""Texts by number without a Python object each: a million point ids are two arrays, not a million str.

Owns how they lie in memory (as Arrow's large strings do: bytes one behind the other, and where each ends) and finding
the number of a text. A str is made for whoever asks for one. Knows nothing of points.

A Python str costs 50 to 120 bytes beside its letters, its place in a list eight, in a dict a hundred: five columns
and two dicts of a city were 70 MB of an engine's memory, for alerts and pages that ask for one of them now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.batch import I32, I64, U8

SLACK: Final = 16
"""Bytes behind the last text that mean nothing: machine code reads eight at a time."""
BUCKETS_PER_TEXT: Final = 1
"""Of ``Numbers``: two looks find a text on average, for four bytes a bucket."""
CHUNK: Final = 16_384
"""Texts decoded at once by who goes through all of them."""


class Texts(Sequence[str]):
    """n texts by number 0 … n-1, never changed.

    at    int64[n + 1], pool uint8[…]: text k is ``pool[at[k]:at[k + 1]]``, UTF-8, with SLACK bytes behind the last
    """

    __slots__ = ("_bytes", "_ends", "at", "pool")

    def __init__(self, at: I64, pool: U8) -> None:
        self.at = at
        self.pool = pool
        self._ends, self._bytes = at.data, pool.data

    @classmethod
    def of(cls, texts: Iterable[str] | pa.Array | pa.ChunkedArray) -> Texts:
        """A copy of ``texts``; those that are Texts already as they are. NULL becomes ""."""
        if isinstance(texts, Texts):
            return texts
        if not isinstance(texts, (pa.Array, pa.ChunkedArray)):
            texts = pa.array(list(texts), pa.large_string())
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        column = pc.fill_null(texts.cast(pa.large_string()), "")
        _, ends, letters = column.buffers()
        at = np.zeros(len(column) + 1, np.int64)
        if len(column):
            at[:] = np.frombuffer(ends, np.int64)[column.offset : column.offset + len(column) + 1]
        first = int(at[0])
        pool = np.zeros(int(at[-1]) - first + SLACK, np.uint8)
        if letters is not None:
            pool[:-SLACK] = np.frombuffer(letters, np.uint8)[first : int(at[-1])]
        return cls(at - first, pool)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        n = len(self)
        if not -n <= number < n:
            raise IndexError(number)
        number = int(number) % n
        return str(self._bytes[self._ends[number] : self._ends[number + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        whole = self.arrow()
        for begin in range(0, len(self), CHUNK):
            yield from whole.slice(begin, CHUNK).to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self):,} texts, {len(self.pool) - SLACK:,} bytes>"

    def arrow(self) -> pa.LargeStringArray:
        """The same memory as a column of Arrow."""
        buffers = pa.py_buffer(self.at), pa.py_buffer(self.pool)
        return pa.LargeStringArray.from_buffers(len(self), *buffers)

    def bytes_of(self, number: int) -> bytes:
        """A text as UTF-8."""
        return bytes(self._bytes[self._ends[number] : self._ends[number + 1]])

    def codes(self) -> I32:
        """int32[n]: the same number for the same text, in the order in which they first come."""
        return np.array(self.arrow().dictionary_encode().indices, np.int32)

    def where(self, text: str) -> I64:
        """The numbers of all texts that are ``text``, ascending."""
        wanted = text.encode(errors="surrogatepass")
        found = np.flatnonzero(np.diff(self.at) == len(wanted))
        # From the end: names of one kind begin alike.
        for k in range(len(wanted) - 1, -1, -1):
            found = found[self.pool[self.at[found] + k] == wanted[k]]
        return found


class Numbers(Mapping[str, int]):
    """From a text to its number; of equal texts to the last. Empty ones are not in it.

    A hash leads to a bucket: the numbers of few texts, which are compared. Eight bytes a text.
    """

    __slots__ = ("_begins", "_bytes", "_ends", "_mask", "_numbers", "_texts")

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._ends, self._bytes = texts.at.data, texts.pool.data
        n = len(texts)
        self._mask = (1 << max(3, (BUCKETS_PER_TEXT * n - 1).bit_length())) - 1
        bucket = np.fromiter((hash(texts.bytes_of(k)) & self._mask for k in range(n)), np.int64, n)
        given = np.flatnonzero(np.diff(texts.at) > 0).astype(np.int32)
        bucket = bucket[given]
        begins = np.zeros(self._mask + 2, np.int32)
        np.cumsum(np.bincount(bucket, minlength=self._mask + 1), out=begins[1:])
        self._begins = begins.data
        self._numbers = given[np.argsort(bucket, kind="stable")].data

    def find(self, text: bytes) -> int | None:
        """The number of a text in UTF-8; None where it is none of them."""
        bucket = hash(text) & self._mask
        ends, letters = self._ends, self._bytes
        for at in range(self._begins[bucket + 1] - 1, self._begins[bucket] - 1, -1):
            number: int = self._numbers[at]
            if letters[ends[number] : ends[number + 1]] == text:
                return number
        return None

    def __getitem__(self, text: str) -> int:
        found: int | None = self.get(text)
        if found is None:
            raise KeyError(text)
        return found

    def get(self, text: object, default: Any = None) -> Any:
        """As a dict's; texts that cannot be UTF-8 are none of them."""
        found = self.find(text.encode(errors="surrogatepass")) if isinstance(text, str) else None
        return default if found is None else found

    def __contains__(self, text: object) -> bool:
        return self.get(text) is not None

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return (self._texts[number] for number in self._numbers)


class Repeated(Sequence[str]):
    """n texts of which few differ, such as units: a code each."""

    __slots__ = ("_codes", "names")

    def __init__(self, codes: I32, names: list[str]) -> None:
        self._codes = codes
        self.names = names

    def __len__(self) -> int:
        return len(self._codes)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self.names[code] for code in self._codes[number].tolist()]
        return self.names[int(self._codes[number])]


def coded(column: pa.Array | pa.ChunkedArray) -> tuple[I32, list[str]]:
    """A column of text as codes into its sorted names; NULL is ""."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    told = pc.fill_null(column, "").dictionary_encode()
    names = told.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return rank[np.asarray(told.indices)].astype(np.int32), [names[one] for one in order]
