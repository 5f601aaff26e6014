"""Units of time. Owns one number, and imports nothing: processes without arrays count in µs too."""

from __future__ import annotations

from typing import Final

US_PER_S: Final = 1_000_000
