"""Files that come with Yuzui and are no code: the demo city, the config with every option, schemas, the unit.

Owns where they stand: in ``configs/`` of a checkout, in ``ingest/shipped_files/`` of an installed wheel, which
pyproject.toml fills from there. Reads none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent
INSTALLED: Final = PACKAGE / "shipped_files"
CHECKOUT: Final = PACKAGE.parent / "configs"


def is_installed() -> bool:
    """Whether this runs from a wheel and not from a checkout."""
    return INSTALLED.is_dir()


def shipped(name: str) -> Path:
    """Where ``name`` stands, such as "chengdu" or "sample.toml"."""
    return (INSTALLED if is_installed() else CHECKOUT) / name


def command() -> str:
    """What a person types to call Yuzui here."""
    return "yuzui" if is_installed() else "scripts/yuzui"
