"""The one config: every table and key an operator may set.

Owns names, types, defaults and their reasons (storage.settings and anomaly.settings hold those of
their rooms, ingest.sourcesettings those of sources). Reading files, ${VAR} and fault reports are in ingest.configfile.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from anomaly.rules.settings import RuleSettings
from anomaly.settings import (
    AlertSettings,
    CheckSettings,
    FileTargetSettings,
    InhibitSettings,
    KindSettings,
    MqttTargetSettings,
    RouteSettings,
    TargetSettings,
    WebhookSettings,
)
from ingest.sourcesettings import SourceSettings as SourceSettings
from ingest.sourcesettings import SourcesSettings, zone_name
from storage.settings import (
    MIB,
    CompactionSettings,
    HotSettings,
    JournalSettings,
    RetentionSettings,
    SealedSettings,
    Settings,
    SnapshotSettings,
)


class CitySettings(Settings):
    """[city]: whose night this is."""

    name: str = "city"
    time_zone: str = "UTC"
    """Decides what a day and an hour of the day mean in queries and limits; storage is UTC."""
    check_zone = field_validator("time_zone")(zone_name)


class DataSettings(Settings):
    """[data]: where everything durable stands."""

    dir: str = Field("data", min_length=1)


class PointsSettings(Settings):
    """[points]: the registry of what is measured."""

    file: str = Field("points.csv", min_length=1)
    """CSV or Parquet, see docs/gateways.md; relative to the config file."""


class ListenerSettings(Settings):
    """[listener]: gateways connect straight to the engine; no broker needed."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: int = Field(1883, ge=0, le=65535)
    """0 takes a free port and says which."""
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    """With it every client must show a certificate; its common name is the credential's name."""
    credentials_file: str | None = None
    """Who may publish what, see `yuzui credential add`."""
    anonymous: bool = True
    """Without credentials, and only on a loopback address."""
    connect_s_max: float = Field(10.0, gt=0)
    """Time from accept to CONNECT."""
    connections_max: int = Field(10_000, ge=1)
    connections_per_address_max: int = Field(10_000, ge=1)
    failed_logins_per_minute_max: int = Field(30, ge=1)
    """Per address; above it connections from there are closed unheard for a minute."""
    buffer_bytes_max: int = Field(4 * MIB, ge=1024)
    """Unanswered bytes kept for one connection, each way."""
    receive_maximum: int = Field(65_535, ge=1, le=65_535)
    keepalive_s_max: int = Field(300, ge=5, le=65_535)
    """Longer keepalives are lowered to this (MQTT 5 Server Keep Alive; enforced for 3.1.1 too)."""


class SubscriberSettings(Settings):
    """[[subscriber]]: readings come from a broker."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)
    url: str
    """mqtt://host:port or mqtts://host:port."""
    filters: list[str] = Field(default_factory=list)
    """Topic filters; `$share/group/filter` too. Either these or `slices`."""
    slices: list[list[str]] = Field(default_factory=list)
    """Instead of `filters`: one connection for each list of filters."""
    connections: int = Field(1, ge=1, le=64)
    """Connections that all take `filters`; above 1 every filter must be a `$share`."""
    qos: Literal[0, 1, 2] = 1
    client_id: str = "yuzui"
    """Stable: the broker keeps our session under it. The subscriber's name and a number for each connection are
    appended."""
    clean_session: bool = False
    session_expiry_s: int = Field(86_400, ge=0)
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """auto: MQTT 5, falling back to 3.1.1 when the broker refuses it."""
    receive_maximum: int = Field(65_535, ge=1, le=65_535)
    keepalive_s: int = Field(30, ge=5, le=65_535)
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    tls_ca_file: str | None = None
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_verify: bool = True
    reconnect_s_max: float = Field(30.0, gt=0)
    """Cap of the jittered exponential backoff."""


class WireSettings(Settings):
    """[wire]: reading sockets."""

    poll_ms: int = Field(20, ge=1, le=100)
    """Sockets are read on a timer, not at each wake-up: at 116,200 messages/s that is five times cheaper, for us and
    for the broker. Of the 50 ms a reading may take to the journal this spends 20, or 30 while much comes and there is
    slack.
    What one poll brings is one group of the journal, so this also paces its fdatasync."""
    message_bytes_max: int = Field(MIB, ge=1024, le=256 * MIB)
    """Largest MQTT packet taken in whole; of a larger PUBLISH the head goes to quarantine."""
    read_bytes_max: int = Field(32 * MIB, ge=64 * 1024, le=1024 * MIB)
    """Read in one poll over all connections; the rest waits in the kernel."""
    unknown_kept_per_minute: int = Field(1_000, ge=0)
    """Quarantined messages kept with their bytes, per source, reason and minute; beyond it they are only
    counted."""


class OpsSettings(Settings):
    """[ops]: /metrics, /livez, /readyz, /healthz."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(9180, ge=0, le=65535)
    tls_cert_file: str | None = None
    """With it the port is https; the commands on this machine then ask through a socket in the data folder."""
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    """With it whoever asks (Prometheus) must show a certificate of this authority; TLS 1.3 only."""


class SqlSettings(Settings):
    """[sql]: read-only SQL over HTTP, POST /sql, in a process of its own; see docs/sql.md."""

    enabled: bool = False
    host: str = "127.0.0.1"
    """Beyond loopback only with a token or client certificates, and TLS or a proxy that has it."""
    port: int = Field(9181, ge=0, le=65535)
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    """With it whoever asks must show a certificate of this authority; TLS 1.3 only."""
    token_file: str | None = None
    """One token a line; a request must bring one of them."""
    hosts: list[str] = Field(default_factory=list)
    """Names by which the door may be asked, besides addresses and localhost: a page elsewhere cannot pose as it."""
    time_s_max: float = Field(30.0, gt=0, le=3600)
    rows_max: int = Field(100_000, ge=1)
    bytes_max: int = Field(32 * MIB, ge=1024)
    """Of one answer, as it is sent. Larger ones are refused, not cut: half an answer looks like a whole one."""
    memory_bytes: int = Field(512 * MIB, ge=64 * MIB)
    """Of one statement. Nothing is spilled to disk."""
    threads: int = Field(1, ge=1, le=64)
    """Of one statement: ingest comes first on a small machine."""
    concurrency_max: int = Field(2, ge=1, le=64)
    """Statements at once; each has a process."""
    waiting_max: int = Field(16, ge=0)
    """Statements that wait for one of those; more are told to come again."""


class ConsoleSettings(Settings):
    """[console]: the one map, a page and its API in the engine; see docs/map.md. Needs the extra `yuzui[console]`."""

    enabled: bool = False
    host: str = "127.0.0.1"
    """Beyond loopback only with users_file, and TLS or a proxy that has it."""
    port: int = Field(9182, ge=0, le=65535)
    hosts: list[str] = Field(default_factory=list)
    """Names under which the page may be asked for, besides localhost and `host`: a page elsewhere cannot pose as it."""
    users_file: str | None = None
    """Who may look and who may act, see `yuzui console user add`."""
    anonymous_view: bool = False
    """Whoever sits at this machine may look without a login; acting needs one. On a loopback address only."""
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    """With it every browser must show a certificate of this authority, before any login; TLS 1.3 only."""
    behind_proxy: bool = False
    """A proxy in front speaks TLS: cookies are for TLS only, the page's address is https, and the last address in
    X-Forwarded-For is whose login it is. The proxy must pass Host on."""
    session_hours: float = Field(12.0, gt=0, le=24 * 30)
    """A login lasts a shift."""
    failed_logins_per_minute_max: int = Field(10, ge=1)
    """Per address and per name; further guesses wait a minute."""
    clients_max: int = Field(200, ge=1)
    """Maps open at once."""
    stalled_s_max: float = Field(60.0, ge=1)
    """A map that takes nothing for so long is let go; it comes back by itself."""
    history_time_s_max: float = Field(10.0, gt=0, le=600)
    history_concurrency_max: int = Field(2, ge=1, le=16)
    """Histories read from the lake at once; each has a process."""
    history_waiting_max: int = Field(16, ge=0)
    history_memory_bytes: int = Field(512 * MIB, ge=64 * MIB)
    """Of one of those processes. Nothing is spilled to disk."""
    queries_dir: str | None = None
    """Saved queries of your own (*.sql), beside those that come with the package; of two of one name yours counts."""
    free_sql: bool = False
    """Whoever may act may also type SQL on the page, over the same views and in the same cage as saved queries."""
    query_time_s_max: float = Field(30.0, gt=0, le=600)
    query_rows_max: int = Field(10_000, ge=1, le=100_000)
    """Of one answer. A longer one is refused, not cut."""
    query_concurrency_max: int = Field(1, ge=1, le=16)
    """Queries at once, each in a process; others wait, as many as history_waiting_max."""
    query_memory_bytes: int = Field(512 * MIB, ge=64 * MIB)
    video_kinds: list[str] = Field(default_factory=lambda: ["video"])
    """Kinds that say whether a camera's picture is there (0: it is not); counted apart from sensors."""


class LogSettings(Settings):
    """[log]."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, JSON elsewhere."""


class Config(Settings):
    """Everything; see configs/sample.toml."""

    city: CitySettings = CitySettings()
    data: DataSettings = DataSettings()
    points: PointsSettings = PointsSettings()
    listener: ListenerSettings = ListenerSettings()
    subscriber: list[SubscriberSettings] = Field(default_factory=list)
    source: list[SourceSettings] = Field(default_factory=list)
    sources: SourcesSettings = SourcesSettings()
    wire: WireSettings = WireSettings()
    journal: JournalSettings = JournalSettings()
    hot: HotSettings = HotSettings()
    sealed: SealedSettings = SealedSettings()
    compaction: CompactionSettings = CompactionSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    retention: RetentionSettings = RetentionSettings()
    kinds: dict[str, KindSettings] = Field(default_factory=dict)
    checks: CheckSettings = CheckSettings()
    rules: RuleSettings = RuleSettings()
    alerts: AlertSettings = AlertSettings()
    route: list[RouteSettings] = Field(default_factory=list)
    inhibit: list[InhibitSettings] = Field(default_factory=list)
    webhook: list[WebhookSettings] = Field(default_factory=list)
    mqtt_target: list[MqttTargetSettings] = Field(default_factory=list)
    file_target: list[FileTargetSettings] = Field(default_factory=list)
    ops: OpsSettings = OpsSettings()
    sql: SqlSettings = SqlSettings()
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()

    @property
    def targets(self) -> list[TargetSettings]:
        """Everything that alerts may be sent to."""
        return [*self.webhook, *self.mqtt_target, *self.file_target]
