"""What several commands need: a config with faults shown as a person reads them, and the running engine.

Owns no behaviour of the engine.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

from ingest.config import Config
from ingest.configfile import ConfigFaults, load

ENGINE_FILE = "engine.json"
"""In the data folder: pid and ports of the engine that holds its lock."""


def load_or_fail(path: str) -> Config:
    """The config, or every fault at once on standard error and exit code 2."""
    if not Path(path).is_file():
        raise click.ClickException(
            f"no config at {path}; name one with --config, or start from configs/sample.toml"
        )
    try:
        return load(Path(path))
    except ConfigFaults as faults:
        lines = "\n".join(f"  {fault}" for fault in faults.faults)
        raise click.ClickException(f"{path}: {len(faults.faults)} fault(s)\n{lines}") from None


def data_dir(config_path: str) -> Path:
    """The data folder the config names."""
    return Path(load_or_fail(config_path).data.dir)


def engine_vitals(folder: Path) -> dict[str, Any] | None:
    """/healthz of the engine running on a data folder; None where none answers."""
    try:
        engine = json.loads((folder / ENGINE_FILE).read_text())
        with urllib.request.urlopen(
            f"http://{engine['ops_host']}:{engine['ops_port']}/healthz", timeout=5
        ) as answer:
            vitals: dict[str, Any] = json.load(answer)
            return vitals
    except urllib.error.HTTPError as answer:
        if answer.code == 503:
            unready: dict[str, Any] = json.load(answer)
            return unready
        return None
    except (OSError, ValueError, KeyError):
        return None
