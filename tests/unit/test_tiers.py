"""The tiers thread, a turn at a time: small logs are merged by their number, at any speed of the clock."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from anomaly.alerts.outbox import Outbox
from ingest.lakelogs import quarantine_table
from ingest.sealing import SealProcess
from ingest.tiers import Tiers
from storage.hot import HotTier
from storage.log_plan import BITE_FILES_MAX, LIVE_FILES_MAX
from storage.logs import ParquetLog
from storage.records import Refusal
from storage.schema import ALERT_LOG, ALERTS, EVENTS, FORECASTS, META_REPLACES, QUARANTINE
from storage.settings import CompactionSettings, RetentionSettings, SealedSettings

SCHEMAS = {
    "quarantine": QUARANTINE,
    "alerts": ALERTS,
    "alert_log": ALERT_LOG,
    "forecasts": FORECASTS,
    "events": EVENTS,
}


def test_small_files_are_bounded_while_no_time_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of events in an instant of the wall's clock: whatever was done by time alone is never done here."""
    logs = {name: ParquetLog(tmp_path / "lake" / name, schema) for name, schema in SCHEMAS.items()}
    sealer = SealProcess(tmp_path, SealedSettings(), CompactionSettings(), RetentionSettings())
    try:
        sealer.ready()
        outbox = Outbox(tmp_path / "outbox.db")
        tiers = Tiers(
            tmp_path, SealedSettings(), RetentionSettings(), HotTier(tmp_path), sealer, -1,
            *logs.values(), outbox, lambda below: below,
        )  # fmt: skip
        frozen = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: frozen, time=time.time, time_ns=time.time_ns)
        monkeypatch.setattr("ingest.tiers.time", clock)
        refused = logs["quarantine"]
        most = 0
        for k in range(1_000):
            row = quarantine_table([(k << 24, Refusal(k, "s", "t", "bad_json", b"{", ""))])
            assert refused.append(k, k, row) is not None
            # The judge goes on while a bite is merged.
            if k % 7 == 6:
                tiers.turn()
                most = max(most, len(_live(refused.folder)))
        print(f"{most} live files at most of 1,000 appended, bites of {BITE_FILES_MAX}")
        assert most <= LIVE_FILES_MAX
        outbox.close()
    finally:
        sealer.close()


def _live(folder: Path) -> set[str]:
    """Files that no merged one has replaced."""
    names = {path.name for path in folder.glob("*.parquet")}
    merged = {name for name in names if name[:20] != name[21:41]}
    replaced = [
        json.loads((pq.read_metadata(folder / name).metadata or {})[META_REPLACES]) for name in merged
    ]
    return names - {name for some in replaced for name in some}
