"""Who may read what only the engine should: modes of the data folder and of files that hold secrets.

Owns which files those are and what is too open. Changes no mode: whoever opened a file may have meant it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from ingest.config import Config

FOLDER_MODE: Final = 0o700
"""Of a data folder the engine makes."""
FOLDER_TOO_OPEN: Final = 0o027
"""A group may read it, for analysts with DuckDB; others may nothing, and nobody else may write."""
SECRET_TOO_OPEN: Final = 0o077
SECRET_OF_ROOT_TOO_OPEN: Final = 0o037
"""A file of root's may be readable by the engine's group: so a service gets what it must not change."""
SECRET_KEYS: Final = (
    "password_file", "secret_file", "token_file", "credentials_file", "users_file", "tls_key_file",
)  # fmt: skip


def secret_files(config: BaseModel) -> Iterator[tuple[str, str]]:
    """(place in the config, path) of every file that holds a secret."""
    for path, value in _leaves(config, "$"):
        if path.rpartition(".")[2] in SECRET_KEYS and isinstance(value, str):
            yield path, value


def certificate_files(config: BaseModel) -> Iterator[tuple[str, str]]:
    """(place in the config, path) of every certificate that is ours to show."""
    for path, value in _leaves(config, "$"):
        if path.rpartition(".")[2] == "tls_cert_file" and isinstance(value, str):
            yield path, value


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, f"{path}[{number}]")
    else:
        yield path, value


def too_open(config: Config) -> list[str]:
    """A line for each folder or file whose mode lets in who should not be; those that are not there are left out."""
    lines = []
    folder = Path(config.data.dir)
    if folder.is_dir() and (mode := _mode(folder)) & FOLDER_TOO_OPEN:
        lines.append(
            f"$.data.dir: {folder} is open to others (mode {mode:04o}): chmod 0700, or 0750 for a group of readers"
        )
    for path, file in secret_files(config):
        try:
            found = os.stat(file)
        except OSError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        of_root = found.st_uid == 0 != os.geteuid()
        if mode & (SECRET_OF_ROOT_TOO_OPEN if of_root else SECRET_TOO_OPEN):
            lines.append(f"{path}: {file} can be read by others (mode {mode:04o}): chmod 0600")
    return lines


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
