"""Route: one thing that can be asked of the console, and what it needs.

Owns that shape only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route: ``needs`` is OPEN, VIEW or OPERATE."""

    method: str
    path: str
    needs: str
    handler: Handler
