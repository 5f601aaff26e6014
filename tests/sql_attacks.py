"""Statements that a door for strangers must refuse: files, writing, settings, other schemas, bombs for the parser."""

from __future__ import annotations

from pathlib import Path

ATTACKS = [
    "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'", 'SELECT * FROM "/etc/passwd"',
    "SELECT * FROM read_text('{data}/lake.sql')", "SELECT * FROM read_blob('{data}/outbox.db')",
    "SELECT * FROM read_text('{data}/lake/../outbox.db')", "SELECT * FROM read_text('{data}/lake/hot/list.json')",
    "SELECT * FROM read_parquet('{data}/lake/points.parquet')", "SELECT * FROM '{data}/lake/points.parquet'",
    "SELECT * FROM glob('/*')", "SELECT * FROM glob('{data}/lake/*')", "FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('{data}/lake/points.parquet')", "SELECT * FROM read_json_auto('/etc/passwd')",
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))", "SELECT 1 WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('readings')",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
    "ATTACH '/tmp/yuzui-attack.db' AS a", "ATTACH '{data}/outbox.db' (TYPE sqlite)", "DETACH memory",
    "COPY (SELECT 1) TO '/tmp/yuzui-attack.csv'", "COPY (SELECT 1) TO '{data}/lake/attack.csv'",
    "COPY points FROM '/etc/passwd'", "WITH x AS (COPY (SELECT 1) TO '{data}/lake/attack.csv') SELECT * FROM x",
    "WITH x AS (INSERT INTO points SELECT * FROM points RETURNING *) SELECT * FROM x",
    "EXPORT DATABASE '/tmp/yuzui-attack'", "IMPORT DATABASE '/tmp'", "INSTALL httpfs", "LOAD httpfs",
    "LOAD '/tmp/x.so'",
    "SET memory_limit = '100GB'", "SET enable_external_access = true", "RESET lock_configuration",
    "SET VARIABLE yuzui = NULL", "PRAGMA database_list", "PRAGMA enable_profiling", "CALL pragma_version()",
    "SELECT getvariable('yuzui')", "SELECT current_setting('allowed_directories')",
    "SELECT getenv('AWS_SECRET_ACCESS_KEY')", "FROM duckdb_settings()", "FROM duckdb_views()", "FROM duckdb_views",
    "FROM sqlite_master", "FROM pragma_database_list",
    "FROM information_schema.tables", "FROM pg_catalog.pg_class", "FROM yuzui_now", "FROM duckdb_secrets()",
    "CREATE TABLE t AS SELECT 1", "CREATE OR REPLACE VIEW readings AS SELECT 1", "DROP VIEW readings",
    "CREATE MACRO history(a, b, c) AS TABLE SELECT 1", "INSERT INTO points SELECT * FROM points", "DELETE FROM points",
    "SELECT 1; SELECT 2", "SELECT 1; DROP VIEW readings", "BEGIN", "EXPLAIN ANALYZE SELECT 1", "PREPARE a AS SELECT 1",
    "VACUUM", "CHECKPOINT", "USE memory", "SELECT * FROM con", "SELECT * FROM nowhere", "SELEC 1",
    "", ";", "--", "\x00",
    "FROM yuzui_between('00000000009999999999{data}/lake/points.parquet', '2026-01-01', now())",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "SELECT '" + "x" * 70_000 + "'",
    "SELECT " + "+".join(["1"] * 20_000), "SELECT " + "[" * 3000 + "]" * 3000,
]  # fmt: skip
"""``{data}`` stands for the data folder."""


def aimed(attack: str, data: Path) -> str:
    """An attack on the lake below ``data``."""
    return attack.replace("{data}", str(data))
