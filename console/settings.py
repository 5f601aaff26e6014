"""What the console must be told. ingest.config makes it of [console]; reasons and limits stand there.

Owns the shape only.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """See [console] in configs/sample.toml; names and meanings are the same."""

    host: str = "127.0.0.1"
    port: int = 9182
    hosts: tuple[str, ...] = ()
    users_file: str | None = None
    anonymous_view: bool = False
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    tls_client_ca_file: str | None = None
    behind_proxy: bool = False
    session_hours: float = 12.0
    failed_logins_per_minute_max: int = 10
    clients_max: int = 200
    stalled_s_max: float = 60.0
    history_time_s_max: float = 10.0
    history_concurrency_max: int = 2
    history_waiting_max: int = 16
    history_memory_bytes: int = 512 << 20
    queries_dir: str | None = None
    free_sql: bool = False
    query_time_s_max: float = 30.0
    query_rows_max: int = 10_000
    query_concurrency_max: int = 1
    query_memory_bytes: int = 512 << 20
    video_kinds: tuple[str, ...] = field(default=("video",))
