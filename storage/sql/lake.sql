-- The lake as views, for plain DuckDB (tested with {{duckdb_tested}}): no extension, no server.
-- Written by the engine at each start; what stands here is lost then.
--
--   duckdb -init {{file}}
--   Python:  con.execute(open({{file_py}}).read())
--
-- The views show one instant. To move all of them to now:
--
--   {{refresh}}
--
-- A session older than {{grace_s}} s gets an error that says so, never a wrong answer.

SET TimeZone = {{time_zone}};

-- What the log of a Delta table says: its files with their event-time hour since 1970, and one row with
-- the watermark (path NULL). Begins at the newest checkpoint; entries must follow it without a hole.
CREATE OR REPLACE MACRO yuzui_log(folder) AS TABLE
WITH base AS MATERIALIZED (
    SELECT max(CAST(parse_filename(file)[:20] AS BIGINT)) AS version
    FROM glob(folder || '/_delta_log/????????????????????.checkpoint.parquet')
), lines AS (
    -- As text and not read_json: a tenth of the time over hundreds of small files.
    SELECT CAST(parse_filename(filename, true) AS BIGINT) AS version, unnest(string_split(content, chr(10))) AS line
    FROM read_text(folder || '/_delta_log/????????????????????.json')
    WHERE CAST(parse_filename(filename, true) AS BIGINT) > (SELECT version FROM base)
), parsed AS MATERIALIZED (
    SELECT version, json_transform(line, '{"add": {"path": "VARCHAR", "partitionValues": {"date": "VARCHAR", "hour": "INTEGER"}},
                                           "remove": {"path": "VARCHAR"},
                                           "txn": {"appId": "VARCHAR", "version": "BIGINT"}}') AS a
    FROM lines WHERE line <> ''
), entries AS (
    SELECT version, a."add" AS "add", a."remove" AS "remove", a.txn AS txn FROM parsed
), snapshot AS MATERIALIZED (
    SELECT "add".path AS path,
           map_extract("add"."partitionValues", 'date')[1] AS date,
           CAST(map_extract("add"."partitionValues", 'hour')[1] AS INTEGER) AS hour,
           txn."appId" AS app, txn.version AS seq
    FROM read_parquet(folder || '/_delta_log/????????????????????.checkpoint.parquet', filename = true)
    WHERE CAST(parse_filename(filename)[:20] AS BIGINT) = (SELECT version FROM base)
), actions AS (
    SELECT version, coalesce("add".path, "remove".path) AS path, "add" IS NOT NULL AS lives,
           "add"."partitionValues".date AS date, "add"."partitionValues".hour AS hour
    FROM entries WHERE "add" IS NOT NULL OR "remove" IS NOT NULL
    UNION ALL
    SELECT -1, path, true, date, hour FROM snapshot WHERE path IS NOT NULL
), files AS (
    SELECT path, max_by(lives, version) AS lives, max_by(date, version) AS date, max_by(hour, version) AS hour
    FROM actions GROUP BY path
)
SELECT url_decode(path) AS path,
       epoch(CAST(date AS DATE))::BIGINT // 3600 + hour AS hour, NULL::BIGINT AS seq
FROM files WHERE lives
UNION ALL
SELECT NULL, NULL, CASE WHEN whole THEN seq ELSE error('the log changed while it was read: refresh again') END
FROM (SELECT coalesce(max(version) - min(version) + 1 = count(DISTINCT version)
                      AND min(version) = (SELECT version FROM base) + 1, true)
             AND (SELECT count(*) > 0 FROM snapshot) AS whole FROM entries),
     (SELECT coalesce(max(seq), -1) AS seq FROM (
          SELECT txn.version AS seq FROM entries WHERE txn."appId" = 'yuzui'
          UNION ALL SELECT seq FROM snapshot WHERE app = 'yuzui'));

-- Hot files by their names: FIRST-LAST-HOUR-HOUR.parquet.
CREATE OR REPLACE MACRO yuzui_hot(pattern) AS TABLE
SELECT file, CAST(n.last AS BIGINT) AS last, CAST(n.lo AS BIGINT) AS hour_min, CAST(n.hi AS BIGINT) AS hour_max
FROM (SELECT parse_filename(file) AS file,
             regexp_extract(parse_filename(file), '^\d{20}-(\d{20})-(-?\d+)-(-?\d+)\.parquet$', ['last', 'lo', 'hi']) AS n
      FROM glob(pattern))
WHERE n.last <> '';

-- The lake at this instant: both logs and the list of hot files, each read once. A hot file belongs to it
-- while its last journal seq is above the watermark of its sealed table, so a seal is seen whole or not at all.
CREATE OR REPLACE VIEW yuzui_now AS
WITH main_log AS MATERIALIZED (FROM yuzui_log({{readings}})),
late_log AS MATERIALIZED (FROM yuzui_log({{late}})),
-- Main before late: a range's late file is put in place before its main file, so no main is seen without its
-- late. Late rows beyond the last main file seen (reach) are left out: a range shows whole or not at all.
main_names AS MATERIALIZED (FROM yuzui_hot({{hot_main_glob}})),
reach AS MATERIALIZED (
    SELECT max(seq) AS seq FROM (SELECT last AS seq FROM main_names UNION ALL SELECT seq FROM main_log)
), late_names AS MATERIALIZED (
    SELECT n.* FROM reach JOIN yuzui_hot({{hot_late_glob}}) n ON n.last <= reach.seq
), latest AS MATERIALIZED (
    SELECT max(parse_filename(file)) AS file, coalesce(CAST(max(parse_filename(file, true)) AS BIGINT), -1) AS seq
    FROM reach JOIN glob({{latest_glob}}) ON CAST(parse_filename(file, true) AS BIGINT) <= reach.seq
), late_files AS MATERIALIZED (
    SELECT {{hot_late}} || file AS path, hour_min, hour_max
    FROM late_names JOIN late_log ON last > seq
    UNION ALL
    SELECT {{late}} || '/' || path, hour, hour FROM late_log WHERE path IS NOT NULL
), hot_main AS MATERIALIZED (
    SELECT {{hot_main}} || file AS path, hour_min, hour_max
    FROM main_names JOIN main_log ON last > seq
), hot_touched AS MATERIALIZED (
    SELECT h.path FROM hot_main h
    SEMI JOIN late_files l ON l.hour_min <= h.hour_max AND l.hour_max >= h.hour_min
), files AS (
    SELECT CASE WHEN path IN (FROM hot_touched) THEN 'touched' ELSE 'plain' END AS list, path, hour_min, hour_max
    FROM hot_main
    UNION ALL
    SELECT CASE WHEN hour IN (SELECT unnest(range(hour_min, hour_max + 1)) FROM late_files)
                THEN 'touched' ELSE 'plain' END, {{readings}} || '/' || path, hour, hour
    FROM main_log WHERE path IS NOT NULL
    UNION ALL SELECT 'late', path, hour_min, hour_max FROM late_files
    UNION ALL SELECT 'latest_file', {{latest}} || file, 0, 0 FROM latest WHERE file IS NOT NULL
    UNION ALL SELECT 'latest_main', {{hot_main}} || m.file, hour_min, hour_max
              FROM main_names m JOIN latest ON last > seq
    UNION ALL SELECT 'latest_late', {{hot_late}} || n.file, hour_min, hour_max
              FROM late_names n JOIN latest ON last > seq
    UNION ALL SELECT 'points', {{points}}, 0, 0 FROM glob({{points}})
    UNION ALL SELECT 'alerts', {{alerts}} || parse_filename(file), 0, 0 FROM glob({{alerts_glob}})
    UNION ALL SELECT 'quarantine', {{quarantine}} || parse_filename(file), 0, 0 FROM glob({{quarantine_glob}})
    -- A file without rows for each list, always there: an empty list of files is an error in DuckDB.
    UNION ALL SELECT list, path, -1000000000000, 1000000000000 FROM (VALUES
        ('plain', {{empty_readings}}), ('touched', {{empty_readings}}), ('late', {{empty_late}}),
        ('latest_file', {{empty_readings}}), ('latest_main', {{empty_readings}}), ('latest_late', {{empty_late}}),
        ('points', {{empty_points}}), ('alerts', {{empty_alerts}}), ('quarantine', {{empty_quarantine}})) e(list, path)
    UNION ALL SELECT 'main_seq', NULL, seq, NULL FROM main_log WHERE seq IS NOT NULL
    UNION ALL SELECT 'late_seq', NULL, seq, NULL FROM late_log WHERE seq IS NOT NULL
    UNION ALL SELECT 'pos_end', NULL, (seq + 1) << {{pos_row_bits}}, NULL FROM reach
), file AS (
    SELECT list, {path: path, hour_min: hour_min, hour_max: hour_max} AS f FROM files
)
SELECT {
    taken_at: now(),
    main_seq: max(f.hour_min) FILTER (list = 'main_seq'),
    late_seq: max(f.hour_min) FILTER (list = 'late_seq'),
    pos_end: max(f.hour_min) FILTER (list = 'pos_end'),
    -- DuckDB guesses the rows of a list from its first file. With the file without rows last in lists of
    -- main readings and first in the others, a join always hashes the small side and prunes the large one.
    plain: list(f ORDER BY f.hour_min DESC, f.path) FILTER (list = 'plain'),
    touched: list(f ORDER BY f.hour_min DESC, f.path) FILTER (list = 'touched'),
    late: list(f ORDER BY f.hour_min, f.path) FILTER (list = 'late'),
    latest_file: list(f ORDER BY f.hour_min, f.path) FILTER (list = 'latest_file'),
    latest_main: list(f ORDER BY f.hour_min DESC, f.path) FILTER (list = 'latest_main'),
    latest_late: list(f ORDER BY f.hour_min, f.path) FILTER (list = 'latest_late'),
    points: list(f ORDER BY f.hour_min, f.path) FILTER (list = 'points'),
    alerts: list(f ORDER BY f.hour_min, f.path) FILTER (list = 'alerts'),
    quarantine: list(f ORDER BY f.hour_min, f.path) FILTER (list = 'quarantine')
} AS snapshot
FROM file;

{{refresh}}

-- The list of files a view may read. Decided once a query, before any row is read.
CREATE OR REPLACE MACRO yuzui_files(files) AS CASE
    WHEN getvariable('yuzui') IS NULL THEN error({{no_snapshot}})
    WHEN now() - CAST(getvariable('yuzui').taken_at AS TIMESTAMPTZ) > INTERVAL '{{grace_s}} seconds' THEN error({{too_old}})
    ELSE [struct_extract(f, 'path') FOR f IN files] END;

CREATE OR REPLACE MACRO yuzui_files_between(files, since, until) AS CASE
    WHEN len(yuzui_files(files)) = 0 THEN []
    ELSE [struct_extract(f, 'path') FOR f IN files
          IF struct_extract(f, 'hour_min') <= epoch(CAST(until AS TIMESTAMPTZ)) / 3600
         AND struct_extract(f, 'hour_max') + 1 >= epoch(CAST(since AS TIMESTAMPTZ)) / 3600] END;

CREATE OR REPLACE VIEW yuzui_points AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').points), hive_partitioning = false);

CREATE OR REPLACE VIEW yuzui_late AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').late), hive_partitioning = false)
WHERE pos < CAST(getvariable('yuzui').pos_end AS BIGINT);

-- Readings by point number, each (point, time) once: main, unless a late reading of the same key was
-- received after it; of late ones the last received. Hours without late files are a plain scan.
CREATE OR REPLACE VIEW yuzui_readings AS
SELECT point, time, lag_ms, value, device_flag, flag, checks, score
FROM read_parquet(yuzui_files(getvariable('yuzui').plain), hive_partitioning = false)
UNION ALL
SELECT m.point, m.time, m.lag_ms, m.value, m.device_flag, m.flag, m.checks, m.score
FROM read_parquet(yuzui_files(getvariable('yuzui').touched), hive_partitioning = false) m
ANTI JOIN yuzui_late l
    ON m.point = l.point AND m.time = l.time
UNION ALL
SELECT point, time, lag_ms, value, device_flag, flag, checks, score
FROM yuzui_late
QUALIFY row_number() OVER (PARTITION BY point, time ORDER BY pos DESC) = 1;

-- received_at is to the millisecond, rounded down; NULL where it lies more than 24 days from time.
CREATE OR REPLACE VIEW readings AS
SELECT p.point_id, p.name, p.kind, p.unit, p.district, p.source,
       r.time, r.time + to_milliseconds(r.lag_ms) AS received_at, r.value, r.flag, r.checks, r.score,
       r.device_flag, r.point
FROM yuzui_readings r
JOIN yuzui_points p ON r.point = p.point AND r.time >= p.valid_from AND r.time < p.valid_to;

CREATE OR REPLACE VIEW readings_good AS
SELECT * FROM readings WHERE flag = {{good}};

-- The last reading of every point that ever spoke: the sealer's file of them, and what is hot since.
CREATE OR REPLACE VIEW latest AS
WITH hot_main AS NOT MATERIALIZED (
    FROM read_parquet(yuzui_files(getvariable('yuzui').latest_main), hive_partitioning = false)
), since AS (
    SELECT point, time, -2::BIGINT AS pos, lag_ms, value, device_flag, flag, checks, score
    FROM read_parquet(yuzui_files(getvariable('yuzui').latest_file), hive_partitioning = false)
    UNION ALL
    SELECT point, time, -1, lag_ms, value, device_flag, flag, checks, score
    FROM hot_main SEMI JOIN (SELECT point, max(time) AS time FROM hot_main GROUP BY point) USING (point, time)
    UNION ALL
    SELECT point, time, pos, lag_ms, value, device_flag, flag, checks, score
    FROM read_parquet(yuzui_files(getvariable('yuzui').latest_late), hive_partitioning = false)
    WHERE pos < CAST(getvariable('yuzui').pos_end AS BIGINT)
), last_of AS (
    SELECT unnest(max_by(since, (time, pos))) FROM since GROUP BY point
)
SELECT p.point_id, p.name, p.kind, p.unit, p.district, p.source,
       r.time, r.time + to_milliseconds(r.lag_ms) AS received_at, r.value, r.flag, r.checks, r.score,
       r.device_flag, r.point
FROM last_of r
JOIN yuzui_points p ON r.point = p.point AND r.time >= p.valid_from AND r.time < p.valid_to;

CREATE OR REPLACE VIEW points AS
SELECT * FROM yuzui_points WHERE valid_to >= TIMESTAMPTZ '9999-01-01 00:00:00+00';

-- The last revision of each alert; severity is the highest it reached, 1 blue to 4 red.
CREATE OR REPLACE VIEW alerts AS
SELECT last_of.id, CASE WHEN last_of.type = 'resolved' THEN 'resolved' ELSE 'firing' END AS state,
       last_of.rule, last_of."class", severity, last_of.point_id, last_of.gateway_id, last_of.kind,
       last_of.district, onset, CASE WHEN last_of.type = 'resolved' THEN last_of.at END AS ended_at,
       last_of.at AS updated_at, last_of.recorded_at, last_of.value, last_of.level, last_of.peak, last_of.unit,
       last_of.summary_zh, last_of.summary_en, last_of.replay, last_of.drill, revisions
FROM (SELECT max_by(a, (revision, recorded_at)) AS last_of, max(severity) AS severity, min(onset) AS onset,
             max(revision) AS revisions
      FROM read_parquet(yuzui_files(getvariable('yuzui').alerts), hive_partitioning = false) a GROUP BY id);

CREATE OR REPLACE VIEW quarantine AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').quarantine), hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY received_at) = 1;

CREATE OR REPLACE MACRO flag_name(flag) AS CASE flag {{flag_cases}} END;

-- The names of the checks that objected.
CREATE OR REPLACE MACRO check_names(checks) AS
    [c.name FOR c IN {{checks}} IF (checks & c.mask) <> 0];

-- One point from a time up to, not including, another. Only files of those hours are opened: over a lake of
-- weeks much faster than readings with a WHERE. The three arguments must be constants:
-- FROM history('cd-00017', now() - INTERVAL 1 DAY, now());
CREATE OR REPLACE MACRO history(id, since, until) AS TABLE
WITH late AS (
    SELECT *
    FROM read_parquet(yuzui_files_between(getvariable('yuzui').late, since, until), hive_partitioning = false)
    WHERE pos < CAST(getvariable('yuzui').pos_end AS BIGINT)
), wanted AS (
    SELECT point, time, lag_ms, value, flag, checks, score
    FROM read_parquet(yuzui_files_between(getvariable('yuzui').plain, since, until), hive_partitioning = false)
    UNION ALL
    SELECT m.point, m.time, m.lag_ms, m.value, m.flag, m.checks, m.score
    FROM read_parquet(yuzui_files_between(getvariable('yuzui').touched, since, until), hive_partitioning = false) m
    ANTI JOIN late l
        ON m.point = l.point AND m.time = l.time
    UNION ALL
    SELECT point, time, lag_ms, value, flag, checks, score
    FROM late
    QUALIFY row_number() OVER (PARTITION BY point, time ORDER BY pos DESC) = 1
)
SELECT p.point_id, r.time, r.time + to_milliseconds(r.lag_ms) AS received_at, r.value, r.flag, r.checks, r.score
FROM wanted r
JOIN yuzui_points p ON r.point = p.point AND r.time >= p.valid_from AND r.time < p.valid_to
WHERE p.point_id = id AND r.time >= CAST(since AS TIMESTAMPTZ) AND r.time < CAST(until AS TIMESTAMPTZ)
ORDER BY r.time;
