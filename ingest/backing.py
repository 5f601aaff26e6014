"""A backup as the engine's own parts see it: how far a running engine is, and which files its config is.

Owns the question to the running engine and the choice of config files. What is copied and how is storage.backup's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ingest.commands.common import engine_vitals
from ingest.config import Config
from ingest.configfile import drop_in_folder, toml_files

JUDGED_S_MAX: Final = 120.0
"""For the judge to come to what was acknowledged when the backup began: far more than a restart's backlog takes."""
LOOK_S: Final = 0.05


class EngineSilent(RuntimeError):  # noqa: N818 - says what happened
    """An engine holds the folder and does not say how far it is."""


def settle(folder: Path, sleep: Callable[[float], None] = time.sleep) -> int:
    """The last journal record on disk now, once the outbox holds whatever it and all before it caused.

    Asks the engine that runs on ``folder``. Raises EngineSilent.
    """
    acknowledged = int(_ask(folder)["journal_seq"])
    # What a turn caused is recorded at its end: that a turn after it was made says so.
    _beyond(folder, _beyond(folder, acknowledged, sleep), sleep)
    return acknowledged


def _beyond(folder: Path, seq: int, sleep: Callable[[float], None]) -> int:
    end = time.monotonic() + JUDGED_S_MAX
    while time.monotonic() < end:
        judged = int(_ask(folder)["judged_seq"])
        if judged > seq:
            return judged
        sleep(LOOK_S)
    raise EngineSilent(
        f"the engine has not judged record {seq} within {JUDGED_S_MAX:.0f} s: see `yuzui status`; no backup was made"
    )


def _ask(folder: Path) -> dict[str, int]:
    vitals = engine_vitals(folder)
    if vitals is None:
        raise EngineSilent(
            f"an engine holds {folder} and does not answer on its operators' port: it is starting, or [ops] is off. "
            "A backup beside a running engine asks there how far it is"
        )
    return vitals


def config_files(path: Path, config: Config) -> dict[str, Path]:
    """Files an engine elsewhere needs beside the data: config, drop-ins, sources, registry, who may come in.

    Names are those below the config's folder, or the bare name of a file elsewhere. Keys of TLS, tokens and passwords
    are left out: they belong into no backup.
    """
    home = path.absolute().parent
    wanted = [
        path.absolute(),
        *toml_files(drop_in_folder(path.absolute())),
        *toml_files(Path(config.sources.dir)),
    ]
    wanted += [Path(config.points.file)]
    wanted += [Path(f) for f in (config.listener.credentials_file, config.console.users_file) if f]
    found: dict[str, Path] = {}
    for file in wanted:
        if file.is_file():
            name = file.relative_to(home).as_posix() if file.is_relative_to(home) else file.name
            found.setdefault(name, file)
    return found
