"""When hours are compacted: a pure rule over files and event time."""

from __future__ import annotations

from dataclasses import replace

from storage.batch import US_PER_S
from storage.compact_plan import (
    FILE_ROWS_MAX,
    MERGE_FILES_MAX,
    SMALL_ROWS,
    Job,
    LiveFile,
    dirty_hours,
    files_per_hour_bound,
    notice,
    plan,
)
from storage.hot import US_PER_HOUR
from storage.settings import CompactionSettings

SETTINGS = CompactionSettings(files_per_hour_max=10)
SEQ = 1_000_000
MINUTE = 60 * US_PER_S


def sealed(hour: int, seq: int, rows: int = 100) -> LiveFile:
    return LiveFile(f"h{hour}/{seq:020d}-{seq:020d}-0.parquet", hour, rows, rows * 5, False, seq)


def compacted(hour: int, number: int = 1, rows: int = 1000) -> LiveFile:
    return LiveFile(f"h{hour}/c{number:020d}-0000.parquet", hour, rows, rows * 5, True, -1)


def after(hour: int, minutes: float) -> int:
    """Event time so many minutes after an hour's end."""
    return (hour + 1) * US_PER_HOUR + int(minutes * MINUTE)


def due(
    main: list[LiveFile], late: list[LiveFile], newest: int, noticed: dict[int, int] | None = None
) -> list[Job]:
    return plan(main, late, SEQ, newest, noticed or {}, SETTINGS)


def test_an_hour_is_compacted_once_it_is_over_and_not_before() -> None:
    files = [sealed(5, 1), sealed(5, 2)]
    assert due(files, [], after(5, 9.9)) == []
    (job,) = due(files, [], after(5, 10))
    assert (job.kind, job.hour, set(job.main), job.late) == ("compact", 5, set(files), ())


def test_a_clean_hour_is_left_alone() -> None:
    assert due([compacted(5)], [], after(5, 9_999)) == []


def test_an_hour_with_nothing_but_late_rows_is_compacted_too() -> None:
    (job,) = due([sealed(9, 1)], [sealed(5, 2)], after(8, 20))
    assert (job.hour, job.main, job.late) == (5, (), (sealed(5, 2),))


def test_hours_come_oldest_first_and_gathering_comes_before_compacting() -> None:
    many = [sealed(9, seq) for seq in range(11)]
    jobs = due([*many, sealed(7, 1), sealed(3, 1)], [], after(9, 0))
    assert [(j.kind, j.hour) for j in jobs] == [("gather", 9), ("compact", 3), ("compact", 7)]


def test_late_files_above_the_main_watermark_wait() -> None:
    early, above = sealed(5, SEQ), sealed(5, SEQ + 1)
    (job,) = due([sealed(5, 1)], [early, above], after(5, 60))
    assert job.late == (early,)
    assert job.upto_seq == SEQ
    assert due([compacted(5)], [above], after(5, 9_999), {5: 0}) == []


def test_a_compacted_hour_waits_for_more_late_rows() -> None:
    files, late = [compacted(5, rows=1000)], [sealed(5, 2, rows=200)]
    seen = after(5, 30)
    assert due(files, late, seen + 9 * MINUTE, {5: seen}) == []
    (job,) = due(files, late, seen + 10 * MINUTE, {5: seen})
    assert set(job.main) == set(files)
    assert set(job.late) == set(late)


def test_few_late_rows_wait_half_of_the_age_of_their_hour() -> None:
    files, late = [compacted(5, rows=1_000_000)], [sealed(5, 2, rows=1)]
    seen = after(5, 600)
    assert due(files, late, seen + 599 * MINUTE, {5: seen}) == []
    assert len(due(files, late, seen + 600 * MINUTE, {5: seen})) == 1


def test_a_late_row_every_minute_for_a_week_rewrites_its_hour_a_dozen_times_at_most() -> None:
    hour, rewrites = 5, 0
    noticed: dict[int, int] = {}
    main, late = [sealed(hour, 0, rows=1_000_000)], list[LiveFile]()
    for minute in range(7 * 24 * 60):
        newest = after(hour, minute)
        late = [*late, sealed(hour, minute, rows=1)][-5:]
        noticed = notice(noticed, dirty_hours(main, late), newest)
        jobs = plan(main, late, SEQ, newest, noticed, SETTINGS)
        if jobs:
            assert jobs[0].kind == "compact"
            rewrites += 1
            main, late = [compacted(hour, rewrites, 1_000_000)], []
            noticed.pop(hour)
    assert 8 <= rewrites <= 12


def test_many_small_files_are_gathered_in_each_table_even_while_the_hour_runs() -> None:
    main, late = [sealed(5, seq) for seq in range(11)], [sealed(5, seq) for seq in range(20, 32)]
    jobs = due([*main, compacted(5)], late, after(5, -30))
    assert [(j.kind, set(j.main), set(j.late)) for j in jobs] == [
        ("gather", set(main), set()),
        ("gather", set(), set(late)),
    ]
    assert due(main[:10], late[:10], after(5, -30)) == []


def test_large_files_are_not_gathered_again_and_again() -> None:
    large = [replace(sealed(5, seq), rows=FILE_ROWS_MAX) for seq in range(30)]
    assert due(large, [], after(5, -30)) == []


def test_an_hour_set_aside_is_not_touched() -> None:
    assert plan([sealed(5, 1)], [], SEQ, after(5, 60), {}, SETTINGS, aside={5}) == []


def test_a_week_delivered_in_an_hour_leaves_a_bounded_number_of_files() -> None:
    """Sixty seals, each with a file for every hour of a week, over an hour of event time."""
    hours, rows = range(168), 1000
    main = [compacted(hour, rows=50_000) for hour in hours]
    noticed: dict[int, int] = {}
    most, jobs_done = 0, 0
    for minute in range(60):
        newest = after(167, minute + 11)
        main += [sealed(hour, minute, rows) for hour in hours]
        noticed = notice(noticed, dirty_hours(main, []), newest)
        for job in plan(main, [], SEQ, newest, noticed, SETTINGS):
            main = [f for f in main if f.hour != job.hour or f not in job.main]
            jobs_done += 1
            if job.kind == "compact":
                main.append(compacted(job.hour, minute + 2, job.rows))
                noticed.pop(job.hour)
            else:
                main.append(sealed(job.hour, job.main[-1].last, job.rows))
        per_hour = [sum(f.hour == hour for f in main) for hour in (0, 80, 167)]
        most = max(most, *per_hour)
    assert most <= files_per_hour_bound(50_000 + 60 * rows, SETTINGS)
    assert len(main) < 168 * (SETTINGS.files_per_hour_max + 2)
    assert jobs_done < 168 * 10


def test_no_job_opens_more_files_than_a_bite_and_no_more_is_written_twice_than_must_be() -> None:
    """A city's hour: 106 seals, each with late rows. Jobs are done one after the other until the hour is compacted."""
    main = [sealed(5, 2 * seq, rows=4_000_000) for seq in range(106)]
    late = [sealed(5, 2 * seq + 1, rows=2_000) for seq in range(106)]
    rows = sum(f.rows for f in main)
    kinds, twice = [], 0
    for number in range(20):
        jobs = plan(main, late, SEQ, after(5, 10), {}, CompactionSettings())
        if not jobs:
            break
        job = jobs[0]
        assert len(job.main) + len(job.late) <= MERGE_FILES_MAX
        kinds.append(job.kind)
        made = replace(sealed(5, max(f.last for f in (*job.main, *job.late)), job.rows), path=f"g{number}")
        main = [f for f in main if f not in job.main]
        late = [f for f in late if f not in job.late]
        if job.kind == "compact":
            main.append(compacted(5, rows=job.rows))
        elif job.late:
            late.append(made)
        else:
            twice += job.rows
            main.append(made)
    assert kinds == ["gather", "gather", "gather", "compact"]
    assert (len(main), late) == (1, [])
    assert twice <= 0.45 * rows


def test_an_hour_of_large_files_only_is_compacted_as_it_is() -> None:
    """Writing them once more to have fewer open would cost more than it saves."""
    main = [sealed(5, seq, rows=SMALL_ROWS) for seq in range(MERGE_FILES_MAX + 6)]
    (job,) = plan(main, [], SEQ, after(5, 10), {}, CompactionSettings())
    assert (job.kind, len(job.main)) == ("compact", MERGE_FILES_MAX + 6)
