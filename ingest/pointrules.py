"""What makes a row of the points registry bad: rules as masks and messages over whole columns.

Owns the rules. Knows nothing of files or line numbers (ingest.points). No rule loops over rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from ingest.config import Config
from storage.batch import I32, Bool

ID_CHARS_MAX = 200
TEXT_CHARS_MAX = 200
"""Of a name: what a table or a telephone can show."""
TOPIC_BYTES_MAX = 1024
"""MQTT allows 65,535; the registry holds every topic in memory."""

TEXT = (
    "point_id",
    "name",
    "device_id",
    "gateway_id",
    "source",
    "kind",
    "unit",
    "district",
    "topic",
    "time_from",
    "upstream",
)
LEVELS = ("level_blue", "level_yellow", "level_orange", "level_red")
LIMITS = ("range_min", "range_max", *LEVELS, "level_gap")
NUMBERS = ("lon", "lat", "expected_interval_s", *LIMITS)
REQUIRED = ("point_id", "source", "kind", "topic")
"""``topic`` only where the source has no topics or port of its own; ``kind`` may be its source's."""
COLUMNS = (
    "point_id",
    "name",
    "device_id",
    "gateway_id",
    "source",
    "kind",
    "unit",
    "district",
    "lon",
    "lat",
    "topic",
    "expected_interval_s",
    "time_from",
    *LIMITS,
    "upstream",
    "retired",
)
TIME_FROM = ("device", "receive")

# C0, DEL, C1, the line and paragraph separators: they break logs, terminals and CSV alike.
_CONTROL = r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"


@dataclass(frozen=True, slots=True)
class Objection:
    """A rule and the rows it objects to.

    mask     bool [rows]
    message  what to say of a bad row, as a text expression over the table's columns
    """

    mask: pl.Series
    message: pl.Expr


def objections(rows: pl.DataFrame, config: Config) -> Iterator[Objection]:
    """Every rule that some row breaks.

    rows  the columns of COLUMNS, typed (text, finite Float64, retired Boolean; missing is null), with
          ``row`` (0 …), ``place`` ("line 2" …), ``wrong_NAME`` (the text of a number or truth value that is
          none, else null), and limits already filled from the kinds
    """
    rules = [*_presence(config), *_texts(config), *_numbers(), *_limits(), *_repeats()]
    masks = rows.select(rule[0].fill_null(False).alias(str(i)) for i, rule in enumerate(rules))
    for mask, rule in zip(masks, rules, strict=True):
        if mask.any():
            yield Objection(mask, rule[1])
    yield from _gateways(rows, config)
    yield from _upstream(rows)


Rule = tuple[pl.Expr, pl.Expr]


def _presence(config: Config) -> Iterator[Rule]:
    own = [source.name for source in config.source if source.topics or source.port is not None]
    for name in REQUIRED:
        empty = pl.col(name).is_null()
        if name == "topic":
            empty &= ~pl.col("source").is_in(own).fill_null(False)
        yield empty, pl.lit(f"{name}: required, but empty")


def _quoted(name: str) -> pl.Expr:
    """The value as a message may show it: one line, not long."""
    text = pl.col(name).str.replace_all(_CONTROL, "\N{REPLACEMENT CHARACTER}")
    return pl.format('"{}"', pl.when(text.str.len_chars() > 60).then(text.str.head(60) + "…").otherwise(text))


def _texts(config: Config) -> Iterator[Rule]:
    for name in TEXT:
        text = pl.col(name)
        yield text.str.contains(_CONTROL), pl.format(f"{name}: control characters in {{}}", _quoted(name))
        if name == "topic":
            too_long = text.str.len_bytes() > TOPIC_BYTES_MAX
            yield too_long, pl.lit(f"topic: longer than {TOPIC_BYTES_MAX} bytes")
        else:
            most = ID_CHARS_MAX if name == "point_id" else TEXT_CHARS_MAX
            yield text.str.len_chars() > most, pl.lit(f"{name}: longer than {most} characters")
    for name in ("point_id", "topic"):
        text = pl.col(name)
        yield text != text.str.strip_chars(), pl.format(f"{name}: spaces around {{}}", _quoted(name))
    # A line that begins with # is a comment in the CSV.
    yield (
        pl.col("point_id").str.starts_with("#"),
        pl.format("point_id: begins with #: {}", _quoted("point_id")),
    )
    wild = pl.col("topic").str.contains(r"[+#]")
    yield wild, pl.format("topic: + and # are wildcards: {}", _quoted("topic"))
    yield (
        pl.col("topic").str.starts_with("$"),
        pl.format("topic: one that begins with $ belongs to the broker: {}", _quoted("topic")),
    )
    known = [source.name for source in config.source]
    yield (
        ~pl.col("source").is_in(known),
        pl.format("source: {} is not a [[source]] of the config", _quoted("source")),
    )
    yield (
        ~pl.col("time_from").is_in(TIME_FROM),
        pl.format("time_from: expected device or receive, got {}", _quoted("time_from")),
    )


def _numbers() -> Iterator[Rule]:
    for name in NUMBERS:
        wrong = f"wrong_{name}"
        yield pl.col(wrong).is_not_null(), pl.format(f"{name}: expected a number, got {{}}", _quoted(wrong))
    yield (
        pl.col("wrong_retired").is_not_null(),
        pl.format("retired: expected true or false, got {}", _quoted("wrong_retired")),
    )
    for name, most in (("lon", 180.0), ("lat", 90.0)):
        yield (
            ~pl.col(name).is_between(-most, most),
            pl.format(f"{name}: expected {-most:g} to {most:g}, got {{}}", pl.col(name)),
        )
    told = pl.col("wrong_lon").is_null() & pl.col("wrong_lat").is_null()
    yield (
        told & (pl.col("lon").is_null() != pl.col("lat").is_null()),
        pl.lit("lon, lat: one without the other"),
    )
    for name in ("expected_interval_s", "level_gap"):
        yield pl.col(name) < 0, pl.format(f"{name}: expected 0 or more, got {{}}", pl.col(name))


def _limits() -> Iterator[Rule]:
    yield (
        pl.col("range_min") > pl.col("range_max"),
        pl.format("range_min: {} is above range_max {}", pl.col("range_min"), pl.col("range_max")),
    )
    steps: list[pl.Expr] = []
    for index, name in enumerate(LEVELS[1:], start=1):
        before = pl.coalesce([pl.col(earlier) for earlier in reversed(LEVELS[:index])])
        steps.append(pl.col(name) - before)
    rising = pl.all_horizontal([(step > 0).fill_null(True) for step in steps])
    falling = pl.all_horizontal([(step < 0).fill_null(True) for step in steps])
    told = [pl.col(name).cast(pl.String).fill_null("-") for name in LEVELS]
    yield (
        ~(rising | falling),
        pl.format("level_blue … level_red: must rise or fall, got {} {} {} {}", *told),
    )


def _repeats() -> Iterator[Rule]:
    # A retired point keeps its row while its successor has taken its topic.
    for name, counted in (("point_id", pl.lit(True)), ("topic", ~pl.col("retired"))):
        first = pl.when(counted).then(pl.col("row")).min().over(name)
        place = pl.col("place").get(first)
        again = counted & pl.col(name).is_not_null() & (pl.col("row") != first)
        yield again, pl.format(f"{name}: {{}} stands already at {{}}", _quoted(name), place)


def _gateways(rows: pl.DataFrame, config: Config) -> Iterator[Objection]:
    """A gateway's topic must say which source speaks, and must not be a point's own topic."""
    templates = {s.name: s.gateway_topic for s in config.source if s.gateway_topic is not None}
    if not templates:
        return
    template = pl.col("source").replace_strict(templates, default=None, return_dtype=pl.String)
    own = template.str.replace("{gateway}", pl.col("gateway_id"), literal=True)
    topics = rows.select("row", "source", "retired", "gateway_id", own=own)
    speaks = topics.filter(pl.col("own").is_not_null() & ~pl.col("retired"))
    pairs = speaks.select("own", "source").unique()
    two = pairs.filter(pl.col("source").n_unique().over("own") > 1)["own"].unique()
    mask = topics["own"].is_in(two.implode()).fill_null(False)
    if mask.any():
        yield Objection(
            mask, pl.format("gateway_id: {} serves two sources at one topic", _quoted("gateway_id"))
        )
    mask = rows["topic"].is_in(pairs["own"].unique().implode()).fill_null(False)
    if mask.any():
        yield Objection(mask, pl.format("topic: {} is a gateway's topic", _quoted("topic")))


def _upstream(rows: pl.DataFrame) -> Iterator[Objection]:
    if rows["upstream"].null_count() == len(rows):
        return
    known = rows["point_id"].drop_nulls()
    unknown = (~rows["upstream"].is_in(known.implode())).fill_null(False)
    if unknown.any():
        yield Objection(unknown, pl.format("upstream: no point {}", _quoted("upstream")))
    circle = pl.Series(_in_circle(_next_of(rows)))
    if circle.any():
        yield Objection(circle, pl.format("upstream: {} leads round in a circle", _quoted("upstream")))


def _next_of(rows: pl.DataFrame) -> I32:
    """Row of each row's upstream point, -1 where none or unknown. int32 [rows]."""
    place = rows.select("point_id", to="row").unique("point_id", keep="first", maintain_order=True)
    found = rows.select(point_id="upstream").join(place, on="point_id", how="left", maintain_order="left")[
        "to"
    ]
    return found.cast(pl.Int32).fill_null(-1).to_numpy()


def _in_circle(following: I32) -> Bool:
    """Rows from which following the arrows never ends. bool [rows]; doubling, so log2(rows) steps."""
    jump = np.append(following, -1).astype(np.int64)
    for _ in range(max(1, len(following).bit_length())):
        jump = jump[jump]
    endless: Bool = jump[:-1] >= 0
    return endless
