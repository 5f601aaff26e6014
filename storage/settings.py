"""What an operator may set about storage. Composed into the one config by ingest.config.

Owns names, types, defaults and the reason of each default. Holds no logic.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MIB = 1 << 20


class Settings(BaseModel):
    """Base of every table of the config: unknown keys are refused, types are strict, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class JournalSettings(Settings):
    """[journal]: the truth on disk before anything is acknowledged."""

    segment_bytes: int = Field(64 * MIB, ge=MIB, le=4096 * MIB)
    """Size at which a new segment file is begun; also the unit in which the journal is cut."""
    reserve_bytes: int = Field(64 * MIB, ge=0)
    """A file kept full so that a full disk still has room for alerts."""
    pending_bytes_max: int = Field(64 * MIB, ge=MIB)
    """Received but not yet on disk; above it Wire stops reading sockets until the disk caught up."""
    tail_bytes_max: int = Field(128 * MIB, ge=MIB)
    """In-memory tail for Judge; beyond it Judge reads from disk."""


class HotSettings(Settings):
    """[hot]: one small Parquet file a second, so that a query sees a reading within two seconds."""

    flush_s: int = Field(1, ge=1, le=60)


class SealedSettings(Settings):
    """[sealed]: sorted files under a Delta commit."""

    seal_s: int = Field(60, ge=1, le=3600)
    rows_max: int = Field(4_000_000, ge=10_000)
    """Sealed earlier when this many rows are hot: bounds what a seal takes at its peak, about 35 bytes a row."""
    grace_s: int = Field(7200, ge=10)
    """How long a replaced hot file stays for readers that still hold its name. An SQL session older than
    this is told to refresh."""


class CompactionSettings(Settings):
    """[compaction]: hours that are over become few sorted files, late readings folded in."""

    lateness_s: int = Field(600, ge=0, le=7 * 86_400)
    """An hour is over when the newest event time is this far past its end: most late readings are there by then."""
    fold_s: int = Field(600, ge=0)
    """An hour compacted before waits at least this long (in event time) for more late readings."""
    files_per_hour_max: int = Field(120, ge=2, le=150)
    """More small files of one hour than this are gathered into one. A city at 116,200 readings/s seals every 34 s,
    which makes 106 files an hour: below this nothing is gathered while the hour runs."""
    memory_bytes: int = Field(160 * MIB, ge=64 * MIB)
    """What a merge may take beyond what the sealer needs anyway. Measured on 2.4 M rows in 60 files: 134 MB, against
    221 MB with 256 MiB, for 1.4 % more instructions; engine, sealer and delivery should fit in 600 MB together."""


class SnapshotSettings(Settings):
    """[snapshot]: Judge's state, so that a restart replays only a tail."""

    every_s: int = Field(60, ge=1, le=3600)


class RetentionSettings(Settings):
    """[retention]: how long each tier is kept, in days before the newest day with readings. Left out: for ever."""

    raw_days: int | None = Field(None, ge=1)
    """Readings as they came. Longer than any source's age_s_max, so that nothing late meets an hour that is gone."""
    raw_days_by_kind: dict[str, int] = Field(default_factory=dict)
    """A shorter time for some kinds; their rollups stay as long as everyone's."""
    rollup_1m_days: int | None = Field(None, ge=1)
    rollup_1h_days: int | None = Field(None, ge=1)
    quarantine_days: int | None = Field(None, ge=1)
    alerts_days: int | None = Field(None, ge=1)
    """Of alerts that have ended, and of the steps in their log."""
    forecasts_days: int | None = Field(None, ge=1)
    events_days: int | None = Field(None, ge=1)
    """Of all steps of events, over or not. Personal data may not be kept for ever: set it where appeals come in."""
