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

-- The lake at this instant: the logs of both Delta tables, the list of hot files and the folders, each read once.
-- A hot file belongs to it while its last journal seq is above the watermark of its sealed table, so a seal is seen
-- whole or not at all. A compaction is seen whole by its number in the main log: files, rollups and folds.
--
-- The order of looking: the late log before the main one, so that late rows which a compaction folds meanwhile are
-- seen twice (and shown once), never not at all; folders after both; the list of hot files when the query runs.
-- Where another order could lead to a wrong answer it leads to an error that says to refresh again.
CREATE OR REPLACE VIEW yuzui_now AS
WITH written AS MATERIALIZED (
    -- As text and not read_json: a tenth of the time over hundreds of small files.
    SELECT contains(filename, '/late/_delta_log/') AS late, CAST(parse_filename(filename, true) AS BIGINT) AS version, content
    FROM read_text([{{late}} || '/_delta_log/????????????????????.json',
                    {{readings}} || '/_delta_log/????????????????????.json'])
), checkpoint AS MATERIALIZED (
    SELECT contains(filename, '/late/_delta_log/') AS late, CAST(parse_filename(filename)[:20] AS BIGINT) AS version,
           "add".path AS path, txn."appId" AS app, txn.version AS seq
    FROM read_parquet([{{late}} || '/_delta_log/????????????????????.checkpoint.parquet',
                       {{readings}} || '/_delta_log/????????????????????.checkpoint.parquet'], filename = true)
), base AS MATERIALIZED (
    SELECT late, max(version) AS version FROM checkpoint GROUP BY late
), since AS MATERIALIZED (
    SELECT written.*, written.version - base.version AS step
    FROM written JOIN base USING (late) WHERE written.version > base.version AND content <> ''
), whole AS MATERIALIZED (
    -- Both tables are there, and the entries after each checkpoint without a hole.
    SELECT (SELECT count(*) FROM base) = 2 AND coalesce(bool_and(entries = steps), true) AS whole
    FROM (SELECT count(*) AS entries, max(step) AS steps FROM since GROUP BY late)
), entry AS MATERIALIZED (
    SELECT late, a."add" IS NOT NULL AS lives, coalesce(a."add".path, a."remove".path) AS path,
           a.txn."appId" AS app, a.txn.version AS seq, step
    FROM (SELECT late, step, json_transform(line, '{"add": {"path": "VARCHAR"}, "remove": {"path": "VARCHAR"},
                                                    "txn": {"appId": "VARCHAR", "version": "BIGINT"}}') AS a
          FROM (SELECT late, step, unnest(string_split(content, chr(10))) AS line FROM since) WHERE line <> '')
    UNION ALL
    SELECT late, true, path, app, seq, 0 FROM checkpoint JOIN base USING (late, version)
), mark AS MATERIALIZED (
    SELECT coalesce(max(seq) FILTER (app = 'yuzui' AND NOT late), -1) AS main_seq,
           coalesce(max(seq) FILTER (app = 'yuzui' AND late), -1) AS late_seq,
           coalesce(max(seq) FILTER (app = 'yuzui-compact' AND NOT late), -1) AS compaction,
           coalesce(max(seq) FILTER (app = 'yuzui-compact' AND late), -1) AS late_compaction
    FROM entry WHERE app IS NOT NULL
), logged AS MATERIALIZED (
    -- date=YYYY-MM-DD/hour=HH/NAME.parquet
    SELECT late, path, epoch(CAST(path[6:15] AS DATE))::BIGINT // 3600 + CAST(path[22:23] AS INTEGER) AS hour
    FROM (SELECT late, url_decode(path) AS path, max_by(lives, step) AS lives FROM entry WHERE path IS NOT NULL GROUP BY ALL)
    WHERE lives
), found AS MATERIALIZED (
    -- All other files, by their folder.
    SELECT parse_filename(parse_dirpath(file)) AS list, parse_filename(file) AS name
    FROM ({{found}})
), hot AS MATERIALIZED (
    SELECT CASE
        WHEN h."last" IS NULL THEN error('the list of hot files is damaged: start the engine')
        WHEN NOT whole OR late_compaction > compaction OR h.sealed_main > main_seq OR h.sealed_late > late_seq
             OR (h."last" >= 0 AND h."last" < main_seq)
        THEN error('the log changed while it was read: refresh again')
        ELSE h END AS h, main_seq, late_seq, compaction, greatest(h."last", main_seq) AS reach
    FROM mark, whole, (SELECT json_transform(content, '{"sealed_main": "BIGINT", "sealed_late": "BIGINT", "last": "BIGINT",
                                                 "main": ["VARCHAR"], "late": ["VARCHAR"]}') AS h
                FROM read_text({{hot_list}}))
), hot_name AS MATERIALIZED (
    -- FIRST-LAST-HOUR-HOUR.parquet; the hours are 1 and 0 where there is no row. unsealed: not yet in the Delta table.
    SELECT late, CASE WHEN late THEN {{hot_late}} ELSE {{hot_main}} END || file AS path, CAST(n.last AS BIGINT) AS last,
           CAST(n.last AS BIGINT) > seq AS unsealed, CAST(n.lo AS BIGINT) AS hour_min, CAST(n.hi AS BIGINT) AS hour_max
    FROM (SELECT late, seq, file,
                 regexp_extract(file, '^\d{20}-(\d{20})-(-?\d+)-(-?\d+)\.parquet$', ['last', 'lo', 'hi']) AS n
          FROM (SELECT false AS late, main_seq AS seq, unnest(h.main) AS file FROM hot
                UNION ALL SELECT true, late_seq, unnest(h.late) FROM hot))
), spans AS MATERIALIZED (
    -- Hours of late and of hot files, each pair once.
    SELECT coalesce(list(DISTINCT {lo: hour_min, hi: hour_max}) FILTER (late), []) AS of_late,
           coalesce(list(DISTINCT {lo: hour_min, hi: hour_max}) FILTER (NOT late), []) AS of_hot
    FROM (SELECT late, hour_min, hour_max FROM hot_name WHERE unsealed
          UNION ALL SELECT late, hour, hour FROM logged WHERE late)
), rollup AS MATERIALIZED (
    -- {hour or day}-{number of its compaction}.parquet, of those committed.
    SELECT hourly, CAST(nullif(n.span, '') AS BIGINT) AS span, max(CAST(nullif(n.number, '') AS BIGINT)) AS number
    FROM (SELECT list = 'rollup_1h' AS hourly, regexp_extract(name, '^(-?\d+)-(\d{20})\.parquet$', ['span', 'number']) AS n
          FROM found WHERE list IN ('rollup_1m', 'rollup_1h'))
    WHERE CAST(nullif(n.number, '') AS BIGINT) <= (SELECT compaction FROM mark) GROUP BY ALL
), hour AS MATERIALIZED (
    -- sealed: it has readings in the main table. touched: a late file has rows of it. clean: compaction wrote all its
    -- files and nothing came since, so its rollups answer; number: of the newest by the minute.
    SELECT hour, sealed, touched, h.number,
           coalesce(compacted AND day.number >= h.number AND NOT touched AND NOT hot, false) AS clean
    FROM (SELECT g.*, len([s FOR s IN spans.of_late IF s.lo <= hour AND s.hi >= hour]) > 0 AS touched,
                 len([s FOR s IN spans.of_hot IF s.lo <= hour AND s.hi >= hour]) > 0 AS hot
          FROM spans, (SELECT hour, bool_or(main) AS sealed, coalesce(bool_and(compacted), false) AS compacted, max(number) AS number
                       FROM (SELECT true AS main, hour, contains(path, '/c') AS compacted, NULL::BIGINT AS number
                             FROM logged WHERE NOT late
                             UNION ALL SELECT false, span, NULL, number FROM rollup WHERE NOT hourly)
                       GROUP BY hour) g) h
    LEFT JOIN rollup day ON hourly AND span = (hour - (hour % 24 + 24) % 24) // 24
), latest AS MATERIALIZED (
    SELECT max(name) AS name, coalesce(max(seq), -1) AS seq
    FROM (SELECT name, TRY_CAST(parse_filename(name, true) AS BIGINT) AS seq FROM found WHERE list = 'latest')
    WHERE seq <= (SELECT reach FROM hot)
), main_file AS MATERIALIZED (
    SELECT CASE WHEN len([s FOR s IN spans.of_late IF s.lo <= hour_max AND s.hi >= hour_min]) > 0 THEN 'touched' ELSE 'plain' END AS list,
           path, hour_min, hour_max, true AS dirty
    FROM hot_name, spans WHERE NOT late AND unsealed
    UNION ALL
    SELECT CASE WHEN touched THEN 'touched' ELSE 'plain' END, {{readings}} || '/' || path, hour, hour, NOT clean
    FROM logged JOIN hour USING (hour) WHERE NOT late
), file AS (
    SELECT list, path, hour_min, hour_max FROM main_file
    UNION ALL SELECT 'dirty', path, hour_min, hour_max FROM main_file WHERE dirty AND list = 'plain'
    UNION ALL SELECT 'late', path, hour_min, hour_max FROM hot_name WHERE late AND unsealed
    UNION ALL SELECT 'late', {{late}} || '/' || path, hour, hour FROM logged WHERE late
    UNION ALL SELECT 'rollup_1m', {{rollup_1m}} || hour || '-' || lpad(number::VARCHAR, 20, '0') || '.parquet', hour, hour
              FROM hour WHERE clean OR NOT sealed
    UNION ALL SELECT 'rollup_1h', {{rollup_1h}} || span || '-' || lpad(number::VARCHAR, 20, '0') || '.parquet', span * 24, span * 24 + 23
              FROM rollup WHERE hourly
    UNION ALL SELECT 'latest_file', {{latest}} || name, 0, 0 FROM latest WHERE name IS NOT NULL
    UNION ALL SELECT CASE WHEN late THEN 'latest_late' ELSE 'latest_main' END, path, hour_min, hour_max
              FROM hot_name JOIN latest ON last > seq
    UNION ALL SELECT list, CASE list {{folder_cases}} END || name, 0, 0 FROM found WHERE list NOT IN ('rollup_1m', 'rollup_1h', 'latest')
    UNION ALL SELECT 'points', {{points}}, 0, 0 FROM glob({{points}})
), files AS MATERIALIZED (
    -- A list is one text: for thousands of files a list of structs costs each refresh and each query many times more.
    SELECT list, string_agg(lpad((hour_min + {{hour_0}})::VARCHAR, 10, '0') || lpad((hour_max + {{hour_0}})::VARCHAR, 10, '0')
                            || path, chr(10)) AS paths
    FROM file GROUP BY list
)
SELECT {
    taken_at: now(),
    main_seq: (SELECT main_seq FROM mark),
    late_seq: (SELECT late_seq FROM mark),
    compaction: (SELECT compaction FROM mark),
    pos_end: (SELECT (reach + 1) << {{pos_row_bits}} FROM hot),
    -- Hot files from before the file of last readings are in the list, or something removed that file.
    latest_whole: (SELECT seq >= h.sealed_main FROM latest, hot),
    -- Hours whose rows are in the files of a day's rollup but count anew from readings.
    dirty_hours: (SELECT coalesce(list(hour), []) FROM hour WHERE sealed AND NOT clean),
    -- With a file without rows in each list, always there: an empty list of files is an error in DuckDB. And DuckDB
    -- guesses the rows of a list from its first file: with that file last in lists of main readings and first
    -- in the others, a join always hashes the small side and prunes the large one.
    {{lists}}
} AS snapshot
FROM files;

{{refresh}}

-- A list of files, one a line: its first hour and its last, ten digits each that count from {{hour_0}} hours before 1970, path.
CREATE OR REPLACE MACRO yuzui_list(files) AS CASE
    WHEN getvariable('yuzui') IS NULL THEN error({{no_snapshot}})
    WHEN now() - CAST(getvariable('yuzui').taken_at AS TIMESTAMPTZ) > INTERVAL '{{grace_s}} seconds' THEN error({{too_old}})
    ELSE string_split(files, chr(10)) END;

-- The files a view may read. Decided once a query, before any row is read.
CREATE OR REPLACE MACRO yuzui_files(files) AS [substring(f, 21) FOR f IN yuzui_list(files)];

CREATE OR REPLACE MACRO yuzui_files_between(files, since, until) AS
    [substring(f, 21) FOR f IN yuzui_list(files)
     IF f < CAST(CAST(floor(epoch(CAST(until AS TIMESTAMPTZ)) / 3600) AS BIGINT) + {{hour_0}} + 1 AS VARCHAR)
    AND substring(f, 11) >= CAST(CAST(ceil(epoch(CAST(since AS TIMESTAMPTZ)) / 3600) AS BIGINT) + {{hour_0}} - 1 AS VARCHAR)];

-- The begin of the span of so many microseconds, counted from 1970, that a time lies in; also before 1970.
CREATE OR REPLACE MACRO yuzui_begin(t, span) AS
    make_timestamptz(epoch_us(CAST(t AS TIMESTAMPTZ)) - (epoch_us(CAST(t AS TIMESTAMPTZ)) % span + span) % span);
CREATE OR REPLACE MACRO yuzui_minute(t) AS yuzui_begin(t, 60000000);
CREATE OR REPLACE MACRO yuzui_hour(t) AS yuzui_begin(t, 3600000000);
CREATE OR REPLACE MACRO yuzui_hour_after(t) AS yuzui_begin(CAST(t AS TIMESTAMPTZ) + to_microseconds(3599999999), 3600000000);

CREATE OR REPLACE VIEW yuzui_points AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').points), hive_partitioning = false);

-- Not a WITH inside of the next: shared, it would keep a query's filters from the files.
CREATE OR REPLACE MACRO yuzui_late_between(since, until) AS TABLE
SELECT *
FROM read_parquet(yuzui_files_between(getvariable('yuzui').late, since, until), hive_partitioning = false)
WHERE pos < CAST(getvariable('yuzui').pos_end AS BIGINT)
  AND "time" >= CAST(since AS TIMESTAMPTZ) AND "time" < CAST(until AS TIMESTAMPTZ);

-- Readings by point number, each (point, time) once: main, unless a late reading of the same key was
-- received after it; of late ones the last received. Hours without late files are a plain scan.
-- files: of hours that no late file touches, of getvariable('yuzui'). The times must be constants.
CREATE OR REPLACE MACRO yuzui_between(files, since, until) AS TABLE
SELECT point, "time", lag_ms, value, device_flag, flag, checks, score
FROM read_parquet(yuzui_files_between(files, since, until), hive_partitioning = false)
WHERE "time" >= CAST(since AS TIMESTAMPTZ) AND "time" < CAST(until AS TIMESTAMPTZ)
UNION ALL
SELECT m.point, m."time", m.lag_ms, m.value, m.device_flag, m.flag, m.checks, m.score
FROM read_parquet(yuzui_files_between(getvariable('yuzui').touched, since, until), hive_partitioning = false) m
ANTI JOIN yuzui_late_between(since, until) l
    ON m.point = l.point AND m."time" = l."time"
WHERE m."time" >= CAST(since AS TIMESTAMPTZ) AND m."time" < CAST(until AS TIMESTAMPTZ)
UNION ALL
SELECT point, "time", lag_ms, value, device_flag, flag, checks, score
FROM yuzui_late_between(since, until)
QUALIFY row_number() OVER (PARTITION BY point, "time" ORDER BY pos DESC) = 1;

-- The same over all times; without bounds in it, so that a query's own filters reach the files.
CREATE OR REPLACE VIEW yuzui_late AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').late), hive_partitioning = false)
WHERE pos < CAST(getvariable('yuzui').pos_end AS BIGINT);

CREATE OR REPLACE MACRO yuzui_all(files) AS TABLE
SELECT point, "time", lag_ms, value, device_flag, flag, checks, score
FROM read_parquet(yuzui_files(files), hive_partitioning = false)
UNION ALL
SELECT m.point, m."time", m.lag_ms, m.value, m.device_flag, m.flag, m.checks, m.score
FROM read_parquet(yuzui_files(getvariable('yuzui').touched), hive_partitioning = false) m
ANTI JOIN yuzui_late l
    ON m.point = l.point AND m."time" = l."time"
UNION ALL
SELECT point, "time", lag_ms, value, device_flag, flag, checks, score
FROM yuzui_late
QUALIFY row_number() OVER (PARTITION BY point, "time" ORDER BY pos DESC) = 1;

CREATE OR REPLACE VIEW yuzui_readings AS FROM yuzui_all(getvariable('yuzui').plain);

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
    FROM read_parquet(yuzui_files(CASE WHEN getvariable('yuzui').latest_whole IS DISTINCT FROM false THEN getvariable('yuzui').latest_file
                                  ELSE error('the file of last readings is missing: start the engine again, it makes one') END),
                      hive_partitioning = false)
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

-- Rollups: one row for each point and minute, or hour, that it has readings in; time is its begin. count: all
-- readings; good: those with a value and flag 1 or 2; the rest is of the good ones, NULL where there is none.
-- Here of the hours that have none on disk, from readings. span in microseconds; since and until on its borders.
CREATE OR REPLACE MACRO yuzui_rolled(span, since, until) AS TABLE
SELECT point, make_timestamptz(begin) AS "time", "count", good, "sum", "min", "max", "first", "last"
FROM (SELECT point, epoch_us("time") - (epoch_us("time") % span + span) % span AS begin,
             CAST(count(*) AS INTEGER) AS "count", CAST(count(value) FILTER (flag IN (1, 2)) AS INTEGER) AS good,
             sum(value) FILTER (flag IN (1, 2)) AS "sum",
             min(value) FILTER (flag IN (1, 2)) AS "min", max(value) FILTER (flag IN (1, 2)) AS "max",
             arg_min(value, "time") FILTER (flag IN (1, 2)) AS "first",
             arg_max(value, "time") FILTER (flag IN (1, 2)) AS "last"
      FROM yuzui_between(getvariable('yuzui').dirty, since, until) GROUP BY 1, 2);

-- From the files of clean hours, and of hours whose readings retention took; other hours anew from readings.
CREATE OR REPLACE MACRO yuzui_minutes(since, until) AS TABLE
SELECT point, "time", "count", good, "sum", "min", "max", "first", "last"
FROM read_parquet(yuzui_files_between(getvariable('yuzui').rollup_1m, since, until), hive_partitioning = false)
WHERE "time" >= CAST(since AS TIMESTAMPTZ) AND "time" < CAST(until AS TIMESTAMPTZ)
UNION ALL FROM yuzui_rolled(60000000, since, until);

CREATE OR REPLACE MACRO yuzui_hours(since, until) AS TABLE
SELECT point, "time", "count", good, "sum", "min", "max", "first", "last"
FROM read_parquet(yuzui_files_between(getvariable('yuzui').rollup_1h, since, until), hive_partitioning = false)
WHERE "time" >= CAST(since AS TIMESTAMPTZ) AND "time" < CAST(until AS TIMESTAMPTZ)
  AND NOT list_contains(getvariable('yuzui').dirty_hours, epoch_us("time") // 3600000000)
UNION ALL FROM yuzui_rolled(3600000000, since, until);

CREATE OR REPLACE VIEW rollup_1m AS
SELECT p.point_id, p.name, p.kind, p.unit, p.district, p.source, r."time", r."count", r.good,
       1 - r.good / r."count" AS bad_share, r."sum" / r.good AS mean, r."sum", r."min", r."max", r."first", r."last", r.point
FROM yuzui_minutes({{always}}) r
JOIN yuzui_points p ON r.point = p.point AND r."time" >= p.valid_from AND r."time" < p.valid_to;

CREATE OR REPLACE VIEW rollup_1h AS
SELECT p.point_id, p.name, p.kind, p.unit, p.district, p.source, r."time", r."count", r.good,
       1 - r.good / r."count" AS bad_share, r."sum" / r.good AS mean, r."sum", r."min", r."max", r."first", r."last", r.point
FROM yuzui_hours({{always}}) r
JOIN yuzui_points p ON r.point = p.point AND r."time" >= p.valid_from AND r."time" < p.valid_to;

-- Every step of every alert. With union_by_name: files from before a column was added stand beside newer ones.
CREATE OR REPLACE VIEW yuzui_alert_steps AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').alerts), hive_partitioning = false, union_by_name = true);

-- The last revision of each alert; severity is the highest it reached, 1 blue to 4 red.
CREATE OR REPLACE VIEW alerts AS
SELECT last_of.id, CASE WHEN last_of.type = 'resolved' THEN 'resolved' ELSE 'firing' END AS state,
       last_of.rule, last_of."class", severity, last_of.point_id, last_of.gateway_id, last_of.kind,
       last_of.district, onset, CASE WHEN last_of.type = 'resolved' THEN last_of.at END AS ended_at,
       last_of.at AS updated_at, last_of.recorded_at, last_of.value, last_of.level, last_of.peak, last_of.unit,
       last_of.summary_zh, last_of.summary_en, last_of.replay, last_of.drill, revisions, last_of.severity_now, last_of.pos
FROM (SELECT max_by(a, (revision, recorded_at)) AS last_of, max(severity) AS severity, min(onset) AS onset,
             max(revision) AS revisions
      FROM yuzui_alert_steps a GROUP BY id);

-- What the map shows: points by district and the worst severity (0 for none) in which an open alert about the city has
-- them. As of a place in the journal, such as the position of a frame of the map, or as of a moment, by what was recorded then.
CREATE OR REPLACE MACRO yuzui_map(pos_end, until) AS TABLE
WITH standing AS (
    SELECT point_id, max(severity_now) AS severity
    FROM (SELECT point_id, severity_now FROM yuzui_alert_steps
          WHERE "class" = 'event' AND pos < pos_end AND recorded_at <= CAST(until AS TIMESTAMPTZ)
          QUALIFY row_number() OVER (PARTITION BY id ORDER BY revision DESC) = 1)
    GROUP BY point_id
)
SELECT p.district, coalesce(s.severity, 0) AS severity, count(*) AS points
FROM points p LEFT JOIN standing s USING (point_id)
WHERE NOT p.retired GROUP BY ALL ORDER BY ALL;

-- FROM map_counts(55120);
CREATE OR REPLACE MACRO map_counts(journal_seq) AS TABLE
FROM yuzui_map((CAST(journal_seq AS BIGINT) + 1) << {{pos_row_bits}}, 'infinity');

CREATE OR REPLACE MACRO map_counts_at(t) AS TABLE FROM yuzui_map({{pos_max}}, t);

-- Refusals and the marks of those sent through again.
CREATE OR REPLACE VIEW yuzui_refusals AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').quarantine), hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY received_at) = 1;

-- What was refused. replayed_at: when it was sent through again; what of it was stored then, and refused anew. Refusals of
-- one message keep its bytes once: raw is empty in the others.
CREATE OR REPLACE VIEW quarantine AS
SELECT r.*, m.replayed_at, m.replay_stored, m.replay_refused
FROM yuzui_refusals r
LEFT JOIN (
    SELECT CAST(split_part(detail, ' ', 1) AS BIGINT) AS id, max(received_at) AS replayed_at,
           max_by(CAST(split_part(detail, ' ', 2) AS BIGINT), received_at) AS replay_stored,
           max_by(CAST(split_part(detail, ' ', 3) AS BIGINT), received_at) AS replay_refused
    FROM yuzui_refusals WHERE reason = 'replayed' GROUP BY ALL
) m USING (id)
WHERE r.reason <> 'replayed';

-- What was expected when: at is the moment, made_at the moment it was said. The newest of a point is the one to read.
CREATE OR REPLACE VIEW forecasts AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').forecasts), hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY made_at) = 1;

-- Every step in the life of an alert: fired, sent, answered, escalated, silenced, resolved.
CREATE OR REPLACE VIEW alert_log AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').alert_log), hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY "at") = 1;

-- Events beside readings: appeals, inspections, findings, alarms of cameras. A step is (source, id, state, time); of a step
-- that was sent again the last received stands. docs/events.md says what each type brings.
CREATE OR REPLACE VIEW yuzui_steps AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').events), hive_partitioning = false);

-- The place of a state in the life of an event; from 4 on it is over.
CREATE OR REPLACE MACRO yuzui_stage(state) AS CASE state {{stage_cases}} ELSE 0 END;

-- Of two steps of an event the greater is the later one. For arg_max, which passes over what a step does not say.
CREATE OR REPLACE MACRO yuzui_step(state, t, pos) AS
    CAST(epoch_us(t) * 8 + yuzui_stage(state) AS HUGEINT) * 9223372036854775808 + pos;

-- A number among the attributes of an event; NULL where there is none of that name.
CREATE OR REPLACE MACRO yuzui_number(attributes, path) AS TRY_CAST(json_extract_string(attributes, path) AS DOUBLE);

CREATE OR REPLACE VIEW event_log AS
SELECT * EXCLUDE (pos) FROM yuzui_steps
QUALIFY row_number() OVER (PARTITION BY source, id, state, "time" ORDER BY pos DESC) = 1;

-- Where each event stands: its last step. What that step does not say is taken from the one before that says it.
CREATE OR REPLACE VIEW events AS
SELECT source, id, arg_max(type, step) AS type, arg_max(state, step) AS state, arg_max(stage, step) < 4 AS is_open,
       min("time") AS opened, max("time") AS "time", arg_max(due, step) AS due,
       arg_max(stage, step) < 4 AND arg_max(due, step) < now() AS overdue,
       arg_max(district, step) AS district, arg_max(category, step) AS category, arg_max(name, step) AS name,
       arg_max(lon, step) AS lon, arg_max(lat, step) AS lat, arg_max(point_id, step) AS point_id,
       arg_max(attributes, step) AS attributes, max(received_at) AS received_at
FROM (SELECT *, yuzui_stage(state) AS stage, yuzui_step(state, "time", pos) AS step FROM yuzui_steps)
GROUP BY source, id;

-- What each compaction made of an hour, by source.
CREATE OR REPLACE VIEW folds AS
SELECT * FROM read_parquet(yuzui_files(getvariable('yuzui').folds), hive_partitioning = false)
WHERE id <= CAST(getvariable('yuzui').compaction AS BIGINT)
QUALIFY row_number() OVER (PARTITION BY id, hour, source ORDER BY folded_at DESC) = 1;

-- Late readings by source: new ones, ones with another value than before (revised), exact repeats.
CREATE OR REPLACE VIEW late_by_source AS
SELECT source, CAST(sum("rows") AS BIGINT) AS "rows", CAST(sum(late_new) AS BIGINT) AS late_new,
       CAST(sum(revised) AS BIGINT) AS revised, CAST(sum(repeats) AS BIGINT) AS repeats,
       sum(revised) / sum("rows") AS revised_share
FROM folds GROUP BY source;

CREATE OR REPLACE MACRO flag_name(flag) AS CASE flag {{flag_cases}} END;

-- The names of the checks that objected.
CREATE OR REPLACE MACRO check_names(checks) AS
    [c.name FOR c IN {{checks}} IF (checks & c.mask) <> 0];

-- What analysts ask. All times are from since up to, not including, until, and must be constants (now() is one):
-- only files of those hours are opened, so over a lake of weeks a macro is much faster than a view with a WHERE.

-- The readings of one point, or of a list of points:
-- FROM history('cd-00017', now() - INTERVAL 1 DAY, now());
CREATE OR REPLACE MACRO history(points, since, until) AS TABLE
WITH wanted AS (
    SELECT p.point, p.point_id, p.valid_from, p.valid_to FROM yuzui_points p
    SEMI JOIN (SELECT unnest([points], recursive := true) AS point_id) w ON p.point_id = w.point_id
)
SELECT p.point_id, r.time, r.time + to_milliseconds(r.lag_ms) AS received_at, r.value, r.flag, r.checks, r.score
FROM yuzui_between(getvariable('yuzui').plain, since, until) r
JOIN wanted p ON r.point = p.point AND r.time >= p.valid_from AND r.time < p.valid_to
ORDER BY p.point_id, r.time;

-- The last value of each point at or before a moment, where it has one in the hour before it (or the other span given):
-- FROM values_at('2026-07-01 03:00', look_back := INTERVAL 6 HOUR);
CREATE OR REPLACE MACRO values_at(t, look_back := '1 hour') AS TABLE
SELECT p.point_id, p.name, p.kind, p.unit, p.district, p.source, p.lon, p.lat, r."time", r.value, r.flag, r.checks
FROM (SELECT point, max("time") AS "time", arg_max(value, "time") AS value, arg_max(flag, "time") AS flag,
             arg_max(checks, "time") AS checks
      FROM yuzui_between(getvariable('yuzui').plain, CAST(t AS TIMESTAMPTZ) - CAST(look_back AS INTERVAL),
                         CAST(t AS TIMESTAMPTZ) + to_microseconds(1))
      WHERE value IS NOT NULL GROUP BY point) r
JOIN yuzui_points p ON r.point = p.point AND r."time" >= p.valid_from AND r."time" < p.valid_to;

-- A kind by district and hour (since and until are rounded down to the hour). mean is of all good readings alike.
CREATE OR REPLACE MACRO district_hourly(kind, since, until) AS TABLE
SELECT p.district, r."time", count(*) AS points, CAST(sum(r."count") AS BIGINT) AS readings, CAST(sum(r.good) AS BIGINT) AS good,
       1 - sum(r.good) / sum(r."count") AS bad_share, sum(r."sum") / sum(r.good) AS mean, min(r."min") AS "min", max(r."max") AS "max"
FROM yuzui_hours(yuzui_hour(since), yuzui_hour(until)) r
JOIN yuzui_points p ON r.point = p.point AND r."time" >= p.valid_from AND r."time" < p.valid_to
WHERE p.kind = kind
GROUP BY p.district, r."time" ORDER BY p.district, r."time";

-- Points within so many kilometres of a place, nearest first, with their last reading:
-- FROM around(104.06, 30.66, 1.5) WHERE kind = 'waterlogging';
-- FROM history((SELECT list(point_id) FROM around(104.06, 30.66, 0.5)), now() - INTERVAL 1 HOUR, now());
CREATE OR REPLACE MACRO around(lon, lat, km) AS TABLE
SELECT p.point_id, p.name, p.kind, p.unit, p.district, p.lon, p.lat, p.km, l."time", l.value, l.flag
FROM (SELECT p.*, 12742 * asin(sqrt(least(1, pow(sin(radians(p.lat - lat) / 2), 2)
             + cos(radians(lat)) * cos(radians(p.lat)) * pow(sin(radians(p.lon - lon) / 2), 2)))) AS km
      FROM points p WHERE NOT p.retired) p
LEFT JOIN latest l USING (point)
WHERE p.km <= km
ORDER BY p.km, p.point_id;

-- How much of what a point should have said arrived (since and until are rounded down to the hour). expected and share
-- are NULL for points without an interval; share can exceed 1 where a point speaks more often than its registry says.
CREATE OR REPLACE MACRO availability(since, until) AS TABLE
SELECT p.point_id, p.name, p.kind, p.district, p.source, p.gateway_id, p.interval_s,
       (epoch(yuzui_hour(until)) - epoch(yuzui_hour(since)))
           / nullif(p.interval_s, 0) AS expected,
       coalesce(r.received, 0) AS received, coalesce(r.good, 0) AS good, coalesce(r.received, 0) / expected AS share
FROM points p
LEFT JOIN (SELECT point, CAST(sum("count") AS BIGINT) AS received, CAST(sum(good) AS BIGINT) AS good
           FROM yuzui_hours(yuzui_hour(since), yuzui_hour(until))
           GROUP BY point) r USING (point)
WHERE NOT p.retired;

-- How much of the time points of a kind said that they live, by district and source: cameras, whose value 0 is offline
-- (a state of 0, 1, 2, or a frame rate). A reading above 0 stands for its point's interval; a point counts as online at most
-- all the time. Points without an interval are left out. online_now: of the points, those whose last word is younger than
-- five intervals and above 0. FROM online_rate('video', now() - INTERVAL 1 DAY, now());
CREATE OR REPLACE MACRO online_rate(kind, since, until) AS TABLE
WITH wanted AS (
    SELECT p.* FROM points p WHERE p.kind = kind AND NOT p.retired AND p.interval_s > 0
), alive AS (
    SELECT r.point, count(*) FILTER (r.value > 0) AS online, count(*) FILTER (r.value > 0 AND r.value <= 1) AS bad
    FROM yuzui_between(getvariable('yuzui').plain, since, until) r SEMI JOIN wanted USING (point)
    GROUP BY r.point
)
SELECT p.district, p.source, count(*) AS points,
       avg(least(1, coalesce(a.online, 0) * p.interval_s / (epoch(CAST(until AS TIMESTAMPTZ)) - epoch(CAST(since AS TIMESTAMPTZ)))))
           AS online_rate,
       count(*) FILTER (l.value > 0 AND l."time" > CAST(until AS TIMESTAMPTZ) - to_milliseconds(CAST(p.interval_s * 5000 AS BIGINT)))
           AS online_now,
       coalesce(sum(a.bad), 0) / nullif(sum(a.online), 0) AS bad_picture_share
FROM wanted p LEFT JOIN alive a USING (point) LEFT JOIN latest l USING (point)
GROUP BY p.district, p.source ORDER BY p.district, p.source;

-- Spans in which a point stood at or above a limit, reading after reading. which: a kind, a point, or a list of either.
-- Readings that failed or have no value are passed over. until_time is the last reading of the span.
-- FROM exceedances('waterlogging', 25, now() - INTERVAL 1 DAY, now());
CREATE OR REPLACE MACRO exceedances(which, threshold, since, until) AS TABLE
WITH wanted AS (
    SELECT p.* FROM yuzui_points p
    SEMI JOIN (SELECT unnest([which], recursive := true) AS name) w ON p.point_id = w.name OR p.kind = w.name
), reached AS (
    -- Rollups say which points are worth a look at their readings.
    SELECT DISTINCT r.point
    FROM yuzui_hours(yuzui_hour(since), yuzui_hour_after(until)) r
    SEMI JOIN wanted USING (point) WHERE r."max" >= threshold
), good AS (
    SELECT r.point, r."time", r.value, r.value >= threshold AS above,
           row_number() OVER (PARTITION BY r.point ORDER BY r."time")
               - row_number() OVER (PARTITION BY r.point, r.value >= threshold ORDER BY r."time") AS run
    FROM yuzui_between(getvariable('yuzui').plain, since, until) r
    SEMI JOIN reached USING (point)
    WHERE r.value IS NOT NULL AND r.flag IN (1, 2)
), spans AS (
    SELECT point, min("time") AS since_time, max("time") AS until_time, count(*) AS readings, max(value) AS peak,
           arg_max("time", value) AS peak_time
    FROM good WHERE above GROUP BY point, run
)
SELECT p.point_id, p.name, p.kind, p.district, s.since_time, s.until_time, s.readings, s.peak, s.peak_time
FROM spans s JOIN wanted p ON s.point = p.point AND s.since_time >= p.valid_from AND s.since_time < p.valid_to
ORDER BY s.since_time, p.point_id;

-- Rain of each gauge, mm (since and until are rounded down to the minute): the sum of its good readings, each of which
-- is the rain since the one before. Gauges that report a sum themselves (rain_1h) must not be summed again.
CREATE OR REPLACE MACRO rain_accumulated(since, until, kind := 'rain_gauge') AS TABLE
WITH span AS (
    FROM yuzui_hours(yuzui_hour_after(since), yuzui_hour(until))
    UNION ALL
    FROM yuzui_minutes(yuzui_minute(since), least(yuzui_hour_after(since), yuzui_minute(until)))
    UNION ALL
    FROM yuzui_minutes(greatest(yuzui_hour_after(since), yuzui_hour(until)), yuzui_minute(until))
)
SELECT p.point_id, any_value(p.name) AS name, any_value(p.district) AS district, coalesce(sum(r."sum"), 0) AS mm,
       CAST(sum(r."count") AS BIGINT) AS readings, 1 - sum(r.good) / sum(r."count") AS bad_share
FROM span r
JOIN yuzui_points p ON r.point = p.point AND r."time" >= p.valid_from AND r."time" < p.valid_to
WHERE p.kind = kind
GROUP BY p.point_id ORDER BY mm DESC, p.point_id;

-- The last time a clock of the city showed this full hour: the begin of the hydrological day is last_clock(8).
CREATE OR REPLACE MACRO last_clock(hour) AS
    date_trunc('day', now() - to_hours(hour)) + to_hours(hour);

-- Rain of each gauge since that hour, today's or yesterday's; 8 is the hydrological day, 0 the calendar day.
CREATE OR REPLACE MACRO rain_since(hour, kind := 'rain_gauge') AS TABLE
FROM rain_accumulated(last_clock(hour), now() + INTERVAL 1 MINUTE, kind := kind);

-- The hydrological day, 08 to 08, that a time belongs to: named by the day on which it begins.
CREATE OR REPLACE MACRO hydrological_day(t) AS CAST(CAST(t AS TIMESTAMPTZ) - INTERVAL 8 HOUR AS DATE);

-- Events of one type, one row each: the time of each stage of its life, and what its attributes say (docs/events.md). over:
-- closed, refused or cancelled; outcome says which. Only the columns a query asks for are computed.
CREATE OR REPLACE MACRO yuzui_cases(of_type) AS TABLE
SELECT source, id, coalesce(arg_max(district, step), '') AS district, coalesce(arg_max(category, step), '') AS category,
       arg_max(due, step) AS due, arg_max(state, step) AS state, min("time") AS opened,
       min("time") FILTER (state = 'assigned') AS assigned, min("time") FILTER (state = 'handled') AS handled,
       max("time") FILTER (state IN ('closed', 'refused', 'cancelled')) AS over,
       arg_max(state, step) FILTER (state IN ('closed', 'refused', 'cancelled')) AS outcome,
       arg_max(yuzui_number(attributes, '$.solved'), step) AS solved,
       arg_max(yuzui_number(attributes, '$.satisfied'), step) AS satisfied,
       arg_max(yuzui_number(attributes, '$.violations'), step) AS violations,
       arg_max(yuzui_number(attributes, '$.guests'), step) AS guests,
       arg_max(yuzui_number(attributes, '$.visits'), step) AS visits,
       arg_max(json_extract_string(attributes, '$.violation'), step) AS violation,
       arg_max(json_extract_string(attributes, '$.project'), step) AS project,
       arg_max(json_extract_string(attributes, '$.channel'), step) AS channel,
       arg_max(json_extract_string(attributes, '$.service'), step) AS service
FROM (SELECT *, yuzui_step(state, "time", pos) AS step FROM yuzui_steps WHERE type = of_type)
GROUP BY source, id;

CREATE OR REPLACE MACRO yuzui_hours_between(a, b) AS (epoch_us(b) - epoch_us(a)) / 3600000000;
CREATE OR REPLACE MACRO yuzui_days_between(a, b) AS (epoch_us(b) - epoch_us(a)) / 86400000000;

-- What citizens asked for from since up to until, by district and category, and what became of it by now. Withdrawn and
-- refused ones count as appeals, not as closed. Rates are of those whose citizen was asked and answered, NULL where nobody
-- was; hours are from the first word to the last closing. solved_answers and satisfied_answers: how many answered, so that rates of
-- districts can be put together.
CREATE OR REPLACE MACRO appeals_by(since, until) AS TABLE
SELECT district, category, count(*) AS appeals, count(*) FILTER (over IS NULL) AS open,
       count(*) FILTER (over IS NULL AND due < now()) AS overdue, count(*) FILTER (outcome = 'closed') AS closed,
       avg(solved) AS resolution_rate, avg(satisfied) AS satisfaction_rate,
       avg(yuzui_hours_between(opened, assigned)) AS hours_to_assign,
       avg(yuzui_hours_between(opened, over)) FILTER (outcome = 'closed') AS hours_to_close,
       quantile_cont(yuzui_hours_between(opened, over), 0.9) FILTER (outcome = 'closed') AS hours_to_close_p90,
       count(solved) AS solved_answers, count(satisfied) AS satisfied_answers
FROM yuzui_cases('appeal')
WHERE opened >= CAST(since AS TIMESTAMPTZ) AND opened < CAST(until AS TIMESTAMPTZ)
GROUP BY district, category ORDER BY district, category;

-- Inspections of food businesses that ended from since up to until, by the city's month and kind of business: how many found
-- something.
CREATE OR REPLACE MACRO violation_rate(since, until) AS TABLE
SELECT CAST(date_trunc('month', over) AS DATE) AS month, category AS business_type, count(*) AS inspections,
       count(*) FILTER (violations > 0) AS violating, coalesce(sum(violations), 0) AS violations,
       count(*) FILTER (violations > 0) / count(*) AS violation_rate
FROM yuzui_cases('inspection')
WHERE outcome = 'closed' AND over >= CAST(since AS TIMESTAMPTZ) AND over < CAST(until AS TIMESTAMPTZ)
GROUP BY ALL ORDER BY month, business_type;

-- What was found, by month, kind of business and kind of violation, and how much of it is put right by now.
CREATE OR REPLACE MACRO violations_by(since, until) AS TABLE
SELECT CAST(date_trunc('month', opened) AS DATE) AS month, category AS business_type, coalesce(violation, '') AS violation,
       count(*) AS violations, count(*) FILTER (outcome = 'closed') AS corrected,
       avg(yuzui_days_between(opened, over)) FILTER (outcome = 'closed') AS days_to_correct
FROM yuzui_cases('violation')
WHERE opened >= CAST(since AS TIMESTAMPTZ) AND opened < CAST(until AS TIMESTAMPTZ)
GROUP BY ALL ORDER BY month, business_type, violation;

-- Village banquets filed from since up to until, by the city's month and district. checked: somebody looked before the feast.
CREATE OR REPLACE MACRO banquets_by(since, until) AS TABLE
SELECT CAST(date_trunc('month', opened) AS DATE) AS month, district, count(*) AS filed,
       count(*) FILTER (assigned IS NOT NULL OR handled IS NOT NULL) AS checked, count(*) FILTER (outcome = 'closed') AS held,
       count(*) FILTER (outcome IN ('refused', 'cancelled')) AS called_off, coalesce(sum(guests), 0) AS guests
FROM yuzui_cases('banquet')
WHERE opened >= CAST(since AS TIMESTAMPTZ) AND opened < CAST(until AS TIMESTAMPTZ)
GROUP BY ALL ORDER BY month, district;

-- Approvals granted from since up to until, by the city's month and kind: days from the filing to the grant.
CREATE OR REPLACE MACRO approval_days(since, until) AS TABLE
SELECT CAST(date_trunc('month', over) AS DATE) AS month, category, count(*) AS approvals,
       avg(yuzui_days_between(opened, over)) AS days, median(yuzui_days_between(opened, over)) AS days_median,
       quantile_cont(yuzui_days_between(opened, over), 0.9) AS days_p90, max(yuzui_days_between(opened, over)) AS days_max
FROM yuzui_cases('approval')
WHERE outcome = 'closed' AND over >= CAST(since AS TIMESTAMPTZ) AND over < CAST(until AS TIMESTAMPTZ)
GROUP BY ALL ORDER BY month, category;

-- Findings of each project: all, those still open, those past their day, and for how long the oldest has been open.
CREATE OR REPLACE MACRO findings_by_project() AS TABLE
SELECT coalesce(project, '') AS project, count(*) AS findings, count(*) FILTER (over IS NULL) AS open,
       count(*) FILTER (over IS NULL AND due < now()) AS overdue,
       max(yuzui_days_between(opened, now())) FILTER (over IS NULL) AS oldest_days,
       avg(yuzui_days_between(opened, over)) FILTER (outcome = 'closed') AS days_to_close
FROM yuzui_cases('finding')
GROUP BY ALL ORDER BY overdue DESC, open DESC, project;

-- Alarms that software raised over pictures of cameras, by district and kind. false_share: of those somebody looked at, the
-- share that was nothing.
CREATE OR REPLACE MACRO video_alarms_by(since, until) AS TABLE
SELECT district, category, count(*) AS alarms, count(*) FILTER (looked_at IS NULL) AS waiting,
       count(*) FILTER (outcome = 'cancelled') AS dismissed,
       count(*) FILTER (outcome = 'cancelled') / nullif(count(looked_at), 0) AS false_share,
       avg(yuzui_hours_between(opened, looked_at)) * 60 AS minutes_to_look
FROM (SELECT *, least(assigned, handled, over) AS looked_at FROM yuzui_cases('video_alarm'))
WHERE opened >= CAST(since AS TIMESTAMPTZ) AND opened < CAST(until AS TIMESTAMPTZ)
GROUP BY district, category ORDER BY district, category;

-- Visits to government services, by the city's day and channel. An event may stand for many visits (attribute visits).
CREATE OR REPLACE MACRO service_visits(since, until) AS TABLE
SELECT CAST(date_trunc('day', opened) AS DATE) AS day, coalesce(channel, '') AS channel,
       sum(coalesce(visits, 1)) AS visits, count(DISTINCT service) AS services
FROM yuzui_cases('visit')
WHERE opened >= CAST(since AS TIMESTAMPTZ) AND opened < CAST(until AS TIMESTAMPTZ)
GROUP BY ALL ORDER BY day, channel;

-- Alerts that somebody was called for from since up to until, and how soon somebody answered. Steps are those of a group, whose
-- id is that of its first alert. Drills are left out.
CREATE OR REPLACE MACRO answers(since, until) AS TABLE
SELECT s.id, coalesce(a.district, p.district, '') AS district, coalesce(p.source, '') AS source, a.rule, a.kind, a.severity,
       s.called_at, s.answered_at, s.answered_by, epoch_us(s.answered_at) / 1e6 - epoch_us(s.called_at) / 1e6 AS answer_s, s.escalations
FROM (SELECT alert_id AS id, min("at") FILTER (step = 'called') AS called_at, min("at") FILTER (step = 'answered') AS answered_at,
             arg_min(who, "at") FILTER (step = 'answered') AS answered_by, count(*) FILTER (step = 'escalated') AS escalations
      FROM alert_log WHERE alert_id IS NOT NULL GROUP BY alert_id) s
JOIN alerts a USING (id) LEFT JOIN points p USING (point_id)
WHERE NOT a.drill AND s.called_at >= CAST(since AS TIMESTAMPTZ) AND s.called_at < CAST(until AS TIMESTAMPTZ);

-- How each point does now, and in the whole hours of a span that are over and folded: others would be counted from readings,
-- too many to look at often. online: heard within five intervals and a minute; NULL without an interval.
CREATE OR REPLACE MACRO yuzui_health(since, until) AS TABLE
WITH hours AS (
    SELECT point, "time", "count", good
    FROM read_parquet(yuzui_files_between(getvariable('yuzui').rollup_1h, since, until), hive_partitioning = false)
    WHERE "time" >= CAST(since AS TIMESTAMPTZ) AND "time" < CAST(until AS TIMESTAMPTZ)
      AND NOT list_contains(getvariable('yuzui').dirty_hours, epoch_us("time") // 3600000000)
)
SELECT p.point_id, p.district, p.source,
       CASE WHEN p.interval_s > 0
            THEN coalesce(l."time" > now() - to_milliseconds(CAST(p.interval_s * 5000 + 60000 AS BIGINT)), false) END AS online,
       epoch_us(l.received_at) / 1e6 - epoch_us(l."time") / 1e6 AS late_s, l.flag IN (1, 2) AND l.value IS NOT NULL AS good_now,
       (SELECT count(DISTINCT "time") FROM hours) * 3600 / nullif(p.interval_s, 0) AS expected,
       coalesce(r.received, 0) AS received, coalesce(r.good, 0) AS good, coalesce(a.alerts, 0) AS alerts, coalesce(a.faults, 0) AS faults
FROM points p
LEFT JOIN latest l USING (point)
LEFT JOIN (SELECT point, CAST(sum("count") AS BIGINT) AS received, CAST(sum(good) AS BIGINT) AS good FROM hours GROUP BY point) r
    USING (point)
LEFT JOIN (SELECT point_id, count(*) FILTER ("class" = 'event') AS alerts, count(*) FILTER ("class" = 'fault') AS faults
           FROM alerts WHERE state = 'firing' AND NOT drill GROUP BY point_id) a ON a.point_id = p.point_id
WHERE NOT p.retired;

-- Source systems: of their points the share online now, how late their newest readings came, the share of those that is good;
-- of the folded hours of the span what arrived of what was due; refusals, open alerts and faults, and how soon the span's calls
-- were answered. timely_share: within a minute. FROM health_by_source(now() - INTERVAL 1 DAY, now());
CREATE OR REPLACE MACRO health_by_source(since, until) AS TABLE
SELECT h.*, coalesce(q.refused, 0) AS refused, l.revised_share, w.called, w.answer_s
FROM (SELECT source, count(*) AS points, avg(CAST(online AS INTEGER)) AS online, median(late_s) AS late_s,
             quantile_cont(late_s, 0.95) AS late_s_p95, avg(CAST(late_s <= 60 AS INTEGER)) AS timely_share,
             avg(CAST(good_now AS INTEGER)) AS good_share,
             sum(received) FILTER (expected > 0) / sum(expected) FILTER (expected > 0) AS arrived_share,
             CAST(sum(alerts) AS BIGINT) AS alerts, CAST(sum(faults) AS BIGINT) AS faults
      FROM yuzui_health(since, until) GROUP BY source) h
LEFT JOIN (SELECT source, count(*) AS refused FROM quarantine
           WHERE received_at >= CAST(since AS TIMESTAMPTZ) AND received_at < CAST(until AS TIMESTAMPTZ) GROUP BY source) q USING (source)
LEFT JOIN late_by_source l USING (source)
LEFT JOIN (SELECT source, count(*) AS called, median(answer_s) AS answer_s FROM answers(since, until) GROUP BY source) w USING (source)
ORDER BY online NULLS LAST, h.source;

-- The same by district, where nothing is known of refusals and revisions.
CREATE OR REPLACE MACRO health_by_district(since, until) AS TABLE
SELECT h.*, w.called, w.answer_s
FROM (SELECT district, count(*) AS points, avg(CAST(online AS INTEGER)) AS online, median(late_s) AS late_s,
             quantile_cont(late_s, 0.95) AS late_s_p95, avg(CAST(late_s <= 60 AS INTEGER)) AS timely_share,
             avg(CAST(good_now AS INTEGER)) AS good_share,
             sum(received) FILTER (expected > 0) / sum(expected) FILTER (expected > 0) AS arrived_share,
             CAST(sum(alerts) AS BIGINT) AS alerts, CAST(sum(faults) AS BIGINT) AS faults
      FROM yuzui_health(since, until) GROUP BY district) h
LEFT JOIN (SELECT district, count(*) AS called, median(answer_s) AS answer_s FROM answers(since, until) GROUP BY district) w USING (district)
ORDER BY online NULLS LAST, h.district;

-- What an office says of its projects: events of type project, whose id is the project's. progress and planned are shares, 0 to 1;
-- devices names what stands on its site: point, device or gateway ids with spaces between.
CREATE OR REPLACE VIEW projects AS
SELECT id AS project, coalesce(arg_max(name, step), '') AS name, coalesce(arg_max(district, step), '') AS district,
       coalesce(arg_max(category, step), '') AS category, arg_max(lon, step) AS lon, arg_max(lat, step) AS lat,
       min("time") AS begun, max("time") AS reported, arg_max(due, step) AS due,
       arg_max(yuzui_number(attributes, '$.progress'), step) AS progress, arg_max(yuzui_number(attributes, '$.planned'), step) AS planned,
       arg_max(yuzui_stage(state), step) < 4 AS is_open, is_open AND coalesce(arg_max(due, step) < now(), false) AS overdue,
       arg_max(json_extract_string(attributes, '$.devices'), step) AS devices
FROM (SELECT *, yuzui_step(state, "time", pos) AS step FROM yuzui_steps WHERE type = 'project')
GROUP BY id;

-- The points of each site: what a project's devices name; and each device with points of building sites that no project names.
CREATE OR REPLACE VIEW yuzui_site_points AS
WITH claimed AS (
    SELECT DISTINCT c.project, k.point
    FROM (SELECT project, unnest(string_split(devices, ' ')) AS key FROM projects WHERE devices IS NOT NULL) c
    JOIN (SELECT point, unnest([point_id, device_id, gateway_id]) AS key FROM points WHERE NOT retired) k USING (key)
    WHERE c.key <> ''
)
SELECT c.project AS site, p.* FROM claimed c JOIN points p USING (point)
UNION ALL
SELECT p.device_id, p.* FROM points p ANTI JOIN claimed c USING (point)
WHERE NOT p.retired AND p.device_id <> ''
  AND p.kind IN ('dust_pm10', 'site_noise', 'crane_moment', 'crane_tilt', 'pit_settlement', 'pit_axial_force');

-- Projects and building sites: what the project says of itself, findings and approvals, and what stands on the site: cameras
-- (kind video) that show a picture now, the most dust and noise, open alerts and the worst of them. known: the project
-- says something of itself, else it is a device, or a name in findings and approvals.
CREATE OR REPLACE MACRO sites_by_project(video := 'video', dust := 'dust_pm10', noise := 'site_noise') AS TABLE
WITH standing AS (
    SELECT point_id, max(severity_now) AS severity FROM alerts
    WHERE state = 'firing' AND "class" = 'event' AND NOT drill GROUP BY point_id
), site AS (
    SELECT s.site AS project, any_value(s.name) AS name, any_value(s.district) AS district, avg(s.lon) AS lon, avg(s.lat) AS lat,
           count(*) AS points, count(*) FILTER (s.kind = video) AS cameras,
           count(*) FILTER (s.kind = video AND l.value > 0
                            AND l."time" > now() - to_milliseconds(CAST(greatest(coalesce(s.interval_s, 0), 60) * 5000 AS BIGINT))) AS cameras_online,
           max(l.value) FILTER (s.kind = dust AND l.flag IN (1, 2)) AS dust, any_value(s.unit) FILTER (s.kind = dust) AS dust_unit,
           max(l.value) FILTER (s.kind = noise AND l.flag IN (1, 2)) AS noise, any_value(s.unit) FILTER (s.kind = noise) AS noise_unit,
           count(*) FILTER (a.severity > 0) AS alerts, coalesce(max(a.severity), 0) AS severity
    FROM yuzui_site_points s LEFT JOIN latest l USING (point) LEFT JOIN standing a ON a.point_id = s.point_id
    GROUP BY s.site
), found AS (
    SELECT project, any_value(district) AS district, count(*) AS findings, count(*) FILTER (over IS NULL) AS open,
           count(*) FILTER (over IS NULL AND due < now()) AS overdue,
           max(yuzui_days_between(opened, now())) FILTER (over IS NULL) AS oldest_days
    FROM yuzui_cases('finding') WHERE project <> '' GROUP BY project
), filed AS (
    SELECT project, any_value(district) AS district, count(*) AS approvals, count(*) FILTER (outcome = 'closed') AS granted
    FROM yuzui_cases('approval') WHERE project <> '' GROUP BY project
)
SELECT project, coalesce(nullif(p.name, ''), s.name, '') AS name, coalesce(nullif(p.district, ''), s.district, f.district, g.district, '') AS district,
       coalesce(p.category, '') AS category, coalesce(p.lon, s.lon) AS lon, coalesce(p.lat, s.lat) AS lat, p.project IS NOT NULL AS known,
       p.progress, p.planned, p.due, coalesce(p.overdue, false) AS late, p.reported,
       coalesce(f.findings, 0) AS findings, coalesce(f.open, 0) AS open, coalesce(f.overdue, 0) AS overdue, f.oldest_days,
       coalesce(g.approvals, 0) AS approvals, coalesce(g.granted, 0) AS granted,
       coalesce(s.points, 0) AS points, coalesce(s.cameras, 0) AS cameras, coalesce(s.cameras_online, 0) AS cameras_online,
       s.dust, s.dust_unit, s.noise, s.noise_unit, coalesce(s.alerts, 0) AS alerts, coalesce(s.severity, 0) AS severity
FROM projects p FULL JOIN site s USING (project) FULL JOIN found f USING (project) FULL JOIN filed g USING (project)
WHERE coalesce(p.is_open, true) OR f.open > 0
ORDER BY overdue DESC, severity DESC, open DESC, known DESC, project;
