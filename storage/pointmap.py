"""The map of points on disk: lake/points.parquet, which numbers every point once and for ever.

Owns the dense numbers (by generations, never reused) and the history of each point. Knows nothing of the
registry file's format: it takes a table of schema.REGISTRY. A new number is on disk before ``merge``
returns, hence before the first journal record that uses it.

The first load is numbered by (kind, district, point_id): rows of one kind then lie together in every sorted
file and statistics prune the rest. Later points are appended, each generation in that order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.batch import F64, I32
from storage.fsync import fsync_dir
from storage.hashes import replace_kept
from storage.points import NO_POINT, TIME_FROM_DEVICE, TIME_FROM_RECEIVE, PointTable
from storage.recovery import Damage, States
from storage.schema import POINTS, REGISTRY, with_metadata
from storage.texts import Repeated, Texts, coded

if TYPE_CHECKING:
    import polars as pl

VALID_FROM_ALWAYS: Final = -30_610_224_000_000_000
"""1000-01-01 UTC in µs: before any reading, and a date that every reader of Parquet can show."""
VALID_TO_ALWAYS: Final = 253_402_214_400_000_000
"""9999-12-31 UTC in µs: the row that is valid now."""


MADE_OF: Final = b"yuzui.made_of"
"""Key of the file's metadata: a text of whoever merged, by which the same registry is known again."""


class PointsLost(RuntimeError):  # noqa: N818 - says what happened
    """No whole copy of the map: the engine must not start on numbers it would have to guess."""


_PLACE = ("device_id", "lon", "lat")
"""A change of these is another sensor or another place: the point gets a new row and keeps its number."""
_ORDER = ("kind", "district", "point_id")
_LEVELS = ("level_blue", "level_yellow", "level_orange", "level_red")


def points_file(root: Path) -> Path:
    """Where the map stands below the data folder."""
    return root / "lake" / "points.parquet"


def backup_file(root: Path) -> Path:
    """Where the second copy of the map stands: a damaged map cannot be made again from anything else."""
    return root / "lake" / "points.backup.parquet"


def load(root: Path) -> pa.Table | None:
    """All rows of the map, former ones too, as schema.POINTS; None where there is no map yet.

    Raises OSError or pyarrow.ArrowInvalid: a damaged map is never guessed anew, for numbers would move.
    """
    path = points_file(root)
    return _read(path) if path.exists() else None


def made_of(root: Path) -> str:
    """What ``merge`` was told the map was made of; "" where it was told nothing, or there is no whole map twice."""
    try:
        if not points_file(root).exists() or not _copied(root):
            return ""
        kept = pq.read_schema(points_file(root)).metadata or {}
    except (pa.ArrowException, OSError):
        return ""
    text: bytes = kept.get(MADE_OF, b"")
    return text.decode(errors="replace")


def _read(path: Path) -> pa.Table:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        # Arrow keeps what each of its threads read with: 40 MB of an engine's memory, for a file read in a second.
        return file.read(use_threads=False).cast(POINTS)


def restore(root: Path, damage: Damage) -> None:
    """Bring back the map from its second copy where it is damaged, gone, or not what was written.

    Call before ``merge``, as the only writer. Raises PointsLost where both copies are damaged: points must not get
    new numbers. Raises OSError.
    """
    path, backup, states = points_file(root), backup_file(root), States(root)
    if _usable(path, states) or not (path.exists() or backup.exists()):
        return
    if not _usable(backup, states):
        raise PointsLost(
            f"{path} is damaged and there is no whole second copy ({backup.name}): which number is which point is "
            "not known any more. Put back either file from a backup of the data folder."
        )
    if path.exists():
        damage.put_aside(path, "damaged")
    tmp = path.with_name("points.tmp")
    tmp.write_bytes(backup.read_bytes())
    replace_kept(root, tmp, path)
    damage.say(f"{path} is restored from {backup.name}")


def _copied(root: Path) -> bool:
    """Whether the second copy is one of the map as it is, and not as it was before a crash."""
    backup = backup_file(root)
    return backup.exists() and backup.read_bytes() == points_file(root).read_bytes()


def _usable(path: Path, states: States) -> bool:
    if not path.exists() or not states.fits(path):
        return False
    try:
        _current(_read(path))
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def merge(root: Path, incoming: pa.Table, now_us: int, made_of: str = "") -> PointTable:
    """Bring the map up to a registry and return the points as of now, by number.

    incoming  schema.REGISTRY, any order; further columns are left out, missing nullable ones are NULL
    now_us    µs since 1970 UTC: from when a moved or replaced sensor counts as another
    made_of   a text kept with what is written, for the function of that name

    Unknown ids get the next numbers; ids no longer named are retired and keep theirs; other changes
    overwrite the current row. The file is on disk on return, and untouched if nothing changed.
    Raises ValueError for a missing column or an id named twice, OSError where it cannot be written.
    """
    registry = _registry(incoming)
    known = load(root)
    old = _frame(known if known is not None else POINTS.empty_table())
    table = _merged(old, registry, now_us)
    if known is None or not table.equals(known) or not _copied(root):
        _save(root, table, made_of)
    return point_table(table)


# polars only where rows are merged: who reads the map does without its 30 MB.
def _frame(table: pa.Table) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _registry(incoming: pa.Table) -> pl.DataFrame:
    import polars as pl

    columns = []
    for field in REGISTRY:
        if field.name in incoming.column_names:
            columns.append(incoming[field.name].cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(incoming.num_rows, field.type))
        else:
            raise ValueError(f"registry has no column {field.name}")
    names = [field.name for field in REGISTRY]
    registry = _frame(pa.table(dict(zip(names, columns, strict=True))))
    twice = registry.filter(pl.col("point_id").is_duplicated())
    if len(twice):
        raise ValueError(f"point_id {twice['point_id'][0]!r} stands in the registry twice")
    return registry


def _merged(old: pl.DataFrame, registry: pl.DataFrame, now_us: int) -> pa.Table:
    import polars as pl

    current = old.filter(pl.col("valid_to").cast(pl.Int64) == VALID_TO_ALWAYS)
    former = old.filter(pl.col("valid_to").cast(pl.Int64) != VALID_TO_ALWAYS)
    stamp = pl.Datetime("us", "UTC")
    was = current.select(
        "point_id", "point", "generation", "valid_from", *(pl.col(n).alias("was_" + n) for n in _PLACE)
    )
    named = registry.join(was, on="point_id", how="left", maintain_order="left")
    moved = pl.any_horizontal(pl.col(n).ne_missing(pl.col("was_" + n)) for n in _PLACE)
    # A clock that went backwards must not make an empty or negative span.
    since = pl.max_horizontal(pl.lit(now_us), pl.col("valid_from").cast(pl.Int64) + 1)
    stayed = named.filter(pl.col("point").is_not_null()).with_columns(
        valid_from=pl.when(moved).then(since.cast(stamp)).otherwise(pl.col("valid_from")), moved=moved
    )
    first_free = int(old["point"].max()) + 1 if len(old) else 0  # type: ignore[arg-type]
    generation = int(old["generation"].max()) + 1 if len(old) else 0  # type: ignore[arg-type]
    new = (
        named.filter(pl.col("point").is_null())
        .sort(_ORDER, nulls_last=True)
        .with_columns(
            point=pl.int_range(first_free, first_free + pl.len(), dtype=pl.Int32),
            generation=pl.lit(generation, pl.Int32),
            valid_from=pl.lit(VALID_FROM_ALWAYS, pl.Int64).cast(stamp),
        )
    )
    ends = stayed.filter("moved").select("point", ended="valid_from")
    closed = current.join(ends, on="point").with_columns(valid_to="ended")
    retired = current.join(registry, on="point_id", how="anti").with_columns(retired=pl.lit(True))
    live = [
        part.with_columns(
            valid_to=pl.lit(VALID_TO_ALWAYS, pl.Int64).cast(stamp), retired=pl.lit(False)
        ).select(POINTS.names)
        for part in (stayed, new)
    ]
    rows = pl.concat([former, closed.select(POINTS.names), retired, *live]).sort("point", "valid_from")
    return rows.to_arrow().cast(POINTS)


def _save(root: Path, table: pa.Table, made_of: str) -> None:
    folder = points_file(root).parent
    folder.mkdir(parents=True, exist_ok=True)
    fsync_dir(root)
    tmp = folder / "points.tmp"
    schema = with_metadata(POINTS)
    if made_of:
        schema = schema.with_metadata({**(schema.metadata or {}), MADE_OF: made_of.encode()})
    with pq.ParquetWriter(
        tmp, schema, compression="zstd", compression_level=1, write_page_checksum=True
    ) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))
    copy = folder / "points.backup.tmp"
    copy.write_bytes(tmp.read_bytes())
    # The map first: a copy that is older than the map would take back numbers that are in use.
    replace_kept(root, tmp, points_file(root))
    replace_kept(root, copy, backup_file(root))


def point_table(table: pa.Table) -> PointTable:
    """The current rows of a map as arrays by number: row i is point i. Missing text is "", numbers NaN.

    interval_s is 0 where missing (never dead); time_from is by device where missing. Raises ValueError
    where a number is missing or stands twice: such a map must not be used.
    """
    current = _current(table)
    text = {name: Texts.of(current[name]) for name in ("point_id", "name", "device_id", "topic")}
    codes = {name: coded(current[name]) for name in ("gateway_id", "source", "kind", "district", "unit")}
    numbers = {
        name: _floats(current[name])
        for name in ("lon", "lat", "interval_s", "range_min", "range_max", *_LEVELS, "level_gap")
    }
    level = np.stack([numbers[name] for name in _LEVELS]) if len(current) else np.empty((4, 0))
    receive = np.asarray(current["time_from"].fill_null("device")) == "receive"
    return PointTable(
        point_id=text["point_id"],
        name=text["name"],
        device_id=text["device_id"],
        topic=text["topic"],
        unit=Repeated(*codes["unit"]),
        gateway=codes["gateway_id"][0],
        source=codes["source"][0],
        kind=codes["kind"][0],
        district=codes["district"][0],
        gateways=codes["gateway_id"][1],
        sources=codes["source"][1],
        kinds=codes["kind"][1],
        districts=codes["district"][1],
        lon=numbers["lon"],
        lat=numbers["lat"],
        interval_s=np.nan_to_num(numbers["interval_s"], nan=0.0),
        time_from=np.where(receive, TIME_FROM_RECEIVE, TIME_FROM_DEVICE).astype(np.uint8),
        range_min=numbers["range_min"],
        range_max=numbers["range_max"],
        level=level,
        level_gap=numbers["level_gap"],
        falling=_falling(level),
        upstream=_upstream(current),
        retired=np.asarray(current["retired"]).astype(np.bool_),
    )


def _current(table: pa.Table) -> pa.Table:
    """The rows that are valid now, by number. Raises ValueError as ``point_table``."""
    mask = np.asarray(table["valid_to"].cast(pa.int64())) == VALID_TO_ALWAYS
    current = table.filter(pa.array(mask)).sort_by("point").combine_chunks()
    if not np.array_equal(np.asarray(current["point"]), np.arange(len(current))):
        raise ValueError("the map of points has a hole or a number twice")
    return current


def _floats(column: pa.ChunkedArray) -> F64:
    return np.array(column.cast(pa.float64()).fill_null(float("nan")), np.float64)


def _falling(level: F64) -> npt.NDArray[np.bool_]:
    """Where the mildest level stands above the worst one, so that low values alarm; False with one level."""
    falling = np.zeros(level.shape[1], np.bool_)
    for mild in range(len(level)):
        for worse in range(mild + 1, len(level)):
            falling |= level[mild] > level[worse]
    return falling


def _upstream(current: pa.Table) -> I32:
    found = pc.index_in(current["upstream"], value_set=current["point_id"].combine_chunks())
    return np.array(found.fill_null(int(NO_POINT)), np.int32)
