"""What an operator may set about checks, alerts and their delivery. Composed by ingest.config.

Owns names, types, defaults and the reason of each default. Holds no logic.
"""

from __future__ import annotations

from typing import Literal

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
    spike_max: float | None = Field(None, gt=0)
    """A reading farther than this from the one before is suspect, unless that was a spike itself; the next one that
    stays there or comes back is believed again."""
    flat_line_s: float | None = Field(None, gt=0)
    """The same value for this long is a stuck sensor. Counted between readings, so gaps do not count."""
    flat_line_skip_zero: bool = False
    """A run of zeros is no fault (a rain gauge on a dry day)."""
    confirm_readings: int = Field(1, ge=1, le=100)
    """Consecutive readings at or above a level before its alert fires, and below it before it is left.
    2 makes a single spike wait; a reading that is suspect by its rate counts, for a real flood rises fast."""
    anomaly_alert: bool = False
    """True: a score over the alarm line is an alert of severity 1. Off by default: over a whole city something is
    always unusual, and a duty room that is called for it stops listening. Flag and score are stored either way."""
    neighbour_sigmas: float | None = Field(None, gt=0)
    """A point this many deviations from its nearest neighbours of the same kind, for `neighbours_s`, is a fault."""
    neighbour_floor: float = Field(0.0, ge=0)
    """Deviations are counted in at least this, in the kind's unit: neighbours that agree by chance convict nobody."""
    drift_sigmas: float | None = Field(None, gt=0)
    """The same for the mean of a day, with its sign: a sensor that drifts away. 2 is a good value."""
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
    neighbours_s: float = Field(1800.0, ge=0)
    """A point must disagree with its neighbours this long: a shower may pass over one of them first."""
    lateness_s: float = Field(10.0, ge=0)
    """Allowed lateness behind the newest event time of a source (its watermark)."""
    fresh_s: float = Field(900.0, gt=0)
    """A limit crossed longer ago than this, when its reading arrives, is recorded but pages nobody:
    a backlog never pages for last night's flood."""


TARGET_NAME = r"^[a-z0-9][a-z0-9_-]*$"
TOPIC_PLACES = ("id", "severity", "district", "kind", "type")
"""What the topic of an [[mqtt_target]] may hold in braces."""
Format = Literal["v1", "alertmanager", "wecom", "dingtalk", "feishu", "cap", "template"]


class TargetSettings(Settings):
    """What every target has."""

    name: str = Field(min_length=1, max_length=64, pattern=TARGET_NAME)
    format: Format = "v1"
    """v1: our own body (configs/schemas/webhook-v1.json). alertmanager: that of Alertmanager's webhooks, version 4.
    wecom, dingtalk, feishu: a message of these robots. cap: CAP 1.2 XML. template: `template_file`."""
    template_file: str | None = None
    """For format "template": JSON whose texts hold ${fields}, see docs/alerts.md."""
    severity_min: int = Field(1, ge=1, le=4)
    concurrency_max: int = Field(64, ge=1, le=256)
    """Calls in the air at once to this target; one alert's calls always go in order."""
    per_minute_max: int | None = Field(None, ge=0, le=100_000)
    """Calls a minute, 0 without limit. Left out: 18 for robots, which ban who sends more than 20; others 0."""
    timeout_s: float = Field(15.0, gt=0, le=60)
    give_up_s: float = Field(86_400.0, gt=0)
    """After this long without success a notification goes to the dead letters. They can be sent again."""


class WebhookSettings(TargetSettings):
    """[[webhook]]: one target that is called when an alert fires, changes or ends."""

    url: str = Field(min_length=8)
    secret: str | None = None
    """Signing secret (Standard Webhooks: `whsec_` + base64, or plain text; a robot's own). Write it as ${VAR}."""
    secret_file: str | None = None
    """Instead: a file with one secret a line. While rotating it holds the new and the old one, and each
    notification carries a signature of both. Robots take the first."""
    allow_link_local: bool = False
    """Link-local and metadata addresses are refused unless the URL names one exactly and this is true."""
    tls_ca_file: str | None = None
    """Trust this authority instead of the system's."""
    tls_cert_file: str | None = None
    """Shown to a target that asks for a client certificate."""
    tls_key_file: str | None = None


class MqttTargetSettings(TargetSettings):
    """[[mqtt_target]]: notifications published to a broker, QoS 1, over a connection of their own."""

    url: str = Field(min_length=8)
    """mqtt://host:port or mqtts://host:port."""
    topic: str = Field("yuzui/alerts/{id}", min_length=1, max_length=512)
    """{id}, {severity}, {district}, {kind} and {type} stand for the alert's own."""
    retain: bool = False
    """The broker keeps each open alert's newest word, and forgets it when it is over; the topic must hold {id}."""
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: str = Field("yuzui-alerts", min_length=1, max_length=64)
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None


class FileTargetSettings(TargetSettings):
    """[[file_target]]: each notification as a file of its own, for systems that collect files."""

    dir: str = Field(min_length=1)
    keep_s: float = Field(30 * 86_400.0, gt=0)
    """Files older than this are removed."""


class RouteSettings(Settings):
    """[[route]]: who hears of which alerts, and who must answer. The first that fits decides; where none fits every
    target hears of it. What is left out fits everything."""

    name: str = Field(min_length=1, max_length=64, pattern=TARGET_NAME)
    severity_min: int = Field(1, ge=1, le=4)
    severity_max: int = Field(4, ge=1, le=4)
    kinds: list[str] = Field(default_factory=list)
    districts: list[str] = Field(default_factory=list)
    rules: list[str] = Field(default_factory=list)
    classes: list[Literal["event", "fault"]] = Field(default_factory=list)
    targets: list[str] = Field(default_factory=list)
    """Names of targets; none: these alerts are recorded and nobody is called."""
    repeat_s: int | None = Field(None, ge=60)
    """Of the digest; that of [alerts] if left out."""
    answer_s: int = Field(0, ge=0)
    """Somebody must answer (`yuzui alert ack`) within this time, else the next of `escalate_to` is called; 0: no."""
    escalate_to: list[str] = Field(default_factory=list)
    """Targets in turn, each after another answer_s without an answer."""
    answer_by: list[str] = Field(default_factory=list)
    """Who answers, as text: first for `targets`, then for each of `escalate_to`."""


class InhibitSettings(Settings):
    """[[inhibit]]: while an alert of `by` stands, those of `rules` in the same place, not worse, call nobody."""

    by: list[str] = Field(min_length=1)
    rules: list[str] = Field(min_length=1)
    same: Literal["gateway", "district", "members"] = "district"
    """Where: the same gateway, the same district, or points that the alert of `by` names."""


class AlertSettings(Settings):
    """[alerts]: what is common to all alerts."""

    link: str | None = None
    """Prefix of the link in a notification, such as https://map.example/alert/ ; the alert id is appended."""
    heartbeat_s: int = Field(0, ge=0)
    """Send a heartbeat notification this often; 0 is never."""
    group: bool = True
    """False: every alert is notified by itself."""
    group_km: float = Field(3.0, gt=0, le=100)
    group_s: float = Field(1800.0, gt=0)
    """Alerts of one kind no further apart than this in place and onset belong to one storm."""
    fault_group_s: float = Field(21_600.0, gt=0)
    """Faults of one rule in a district belong together while the last came no longer ago."""
    fault_groups_max: int = Field(4, ge=1)
    """More districts than this with the same fault at once: one group for the whole city."""
    outages_max: int = Field(20, ge=1)
    """Outages that are told one by one; further ones at once go into one group."""
    repeat_s: int = Field(1800, ge=60)
    """What changed in a group without being told at once is told together this often: the digest."""
    flap_max: int = Field(3, ge=1)
    flap_s: float = Field(1800.0, gt=0)
    """An alert that comes back more than flap_max times within flap_s is flapping: told once, then held ..."""
    flap_quiet_s: float = Field(600.0, gt=0)
    """... until it has not come back for this long."""
    sender: str = "yuzui"
    """Who says it in CAP messages: a domain name, or name@domain."""
