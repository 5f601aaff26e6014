"""What an operator may set about checks, alerts and their delivery. Composed by ingest.config.

Owns names, types, defaults and the reason of each default. Holds no logic.
"""

from __future__ import annotations

from pydantic import Field

from storage.settings import Settings


class KindSettings(Settings):
    """[kinds.NAME]: what holds for every point of a kind unless its registry row says otherwise.

    A limit left out is not checked.
    """

    unit: str | None = None
    range_min: float | None = None
    range_max: float | None = None
    level_blue: float | None = None
    level_yellow: float | None = None
    level_orange: float | None = None
    level_red: float | None = None
    """Four warning levels. Rising (blue < red) alarms on high values, falling on low ones."""
    level_gap: float | None = Field(None, ge=0)
    """A level is left only when the value is back by this much: no flapping at the line."""
    rate_max_per_s: float | None = Field(None, gt=0)
    """Largest believable change per second; above it the reading is suspect."""
    flat_line_s: float | None = Field(None, gt=0)
    """The same value for this long is a stuck sensor. Counted between readings, so gaps do not count."""
    flat_line_skip_zero: bool = False
    """A run of zeros is no fault (a rain gauge on a dry day)."""
    confirm_readings: int = Field(1, ge=1, le=100)
    """Consecutive readings at or above a level before its alert fires, and below it before it is left.
    2 makes a single spike wait; a reading that is suspect by its rate counts, for a real flood rises fast."""
    alert: bool = True
    """False: flags and check bits only, never an alert."""
    title_zh: str | None = Field(None, max_length=40)
    """What an alert calls the quantity when it is read aloud: 积水, 水位. Default: the kind's name."""
    title_en: str | None = Field(None, max_length=40)


class CheckSettings(Settings):
    """[checks]: what holds for all kinds."""

    dead_intervals: float = Field(5.0, gt=1)
    """A point is dead after this many expected intervals without a reading ..."""
    dead_s_min: float = Field(30.0, ge=1)
    """... but never sooner than this: a 1 Hz point may miss a few seconds on a mobile link."""
    outage_share: float = Field(0.8, gt=0, le=1)
    """When this share of a gateway's live points is dead at once, the gateway is the fault: one alert."""
    outage_points_min: int = Field(3, ge=2)
    """A gateway with fewer points than this is judged point by point."""
    lateness_s: float = Field(10.0, ge=0)
    """Allowed lateness behind the newest event time of a source (its watermark)."""
    fresh_s: float = Field(900.0, gt=0)
    """A limit crossed longer ago than this, when its reading arrives, is recorded but pages nobody:
    a backlog never pages for last night's flood."""


class WebhookSettings(Settings):
    """[[webhook]]: one target that is called when an alert fires, changes or ends."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")
    url: str = Field(min_length=8)
    secret: str | None = None
    """Signing secret (Standard Webhooks, `whsec_` + base64, or plain text). Write it as ${VAR}."""
    secret_file: str | None = None
    """Instead: a file with one secret a line. While rotating it holds the new and the old one, and each
    notification carries a signature of both."""
    severity_min: int = Field(1, ge=1, le=4)
    timeout_s: float = Field(15.0, gt=0, le=60)
    concurrency_max: int = Field(64, ge=1, le=256)
    """Calls in the air at once to this target; one alert's calls always go in order."""
    give_up_s: float = Field(86_400.0, gt=0)
    """After this long without a 2xx a notification goes to the dead letters. They can be sent again."""
    allow_link_local: bool = False
    """Link-local and metadata addresses are refused unless the URL names one exactly and this is true."""


class AlertSettings(Settings):
    """[alerts]: what is common to all alerts."""

    link: str | None = None
    """Prefix of the link in a notification, such as https://map.example/alert/ ; the alert id is appended."""
    heartbeat_s: int = Field(0, ge=0)
    """Send a heartbeat notification this often; 0 is never."""
