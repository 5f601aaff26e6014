"""The engine's side of the map: whether the console is installed, and what it is given.

Owns the one place where the engine imports the console. All else works with it deleted.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from anomaly.alerts.outbox import Outbox
    from anomaly.live import Live
    from ingest.app import App
    from ingest.config import Config
    from storage.certificates import ServerTls


class Door(Protocol):
    """An open console."""

    tls: ServerTls | None

    @property
    def address(self) -> str:
        """Where the page is."""

    def vitals(self) -> dict[str, Any]:
        """Its numbers, named as ingest.ops knows them."""

    async def __aexit__(self, *_: object) -> None:
        """Close it."""


async def opened(app: App, live: Live, outbox: Outbox) -> Door:
    """The console of this engine, serving. Raises ValueError where it is not installed or not safe, OSError."""
    try:
        from console.display import City
        from console.server import Console, Marks
        from console.settings import Options
        from console.shown import warm
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "console":
            raise
        raise ValueError("[console] is enabled and the console is not installed: yuzui[console]") from None
    warm()
    config = app.config
    said = config.console.model_dump(exclude={"enabled"})
    given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in said.items()}
    options = Options(**given)
    city = City(config.city.name, config.city.time_zone, config.kinds, options.video_kinds)
    marks = Marks(app.events_clock, app.drill, engine_version())
    counts = app.wire.messages.counts
    console = Console(options, app.root, city, live, outbox, lambda: counts.get("messages", 0), marks)
    return await console.__aenter__()


def users_faults(config: Config) -> list[str]:
    """What is wrong with the file of the map's users, a line each; nothing without a map or without the file's key."""
    file = config.console.users_file
    if not config.console.enabled or file is None:
        return []
    try:
        from console.logins import read_users
    except ModuleNotFoundError:
        return []  # that the console is not installed is told when it is opened
    try:
        read_users(Path(file))
    except ValueError as fault:
        return [f"{file}: {fault}"]
    except OSError as fault:
        return [f"$.console.users_file: {file}: {fault.strerror}; make it with `yuzui console user add`"]
    return []


def engine_version() -> str:
    """Of the installed distribution; "" in a bare checkout."""
    try:
        return version("yuzui")
    except PackageNotFoundError:
        return ""
