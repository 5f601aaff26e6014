"""The list of hashes: what was kept is read back, whatever a power cut or a flipped bit did to the list."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage import hashes
from storage.hashes import LIST_NAME, hashes_dir, keep_hashes, kept, mend, replace_kept, sum_of

ROOT = Path(__file__).resolve().parents[2]


def written(root: Path, *names: str) -> list[Path]:
    (root / "lake").mkdir(exist_ok=True)
    for name in names:
        (root / "lake" / name).write_text(name)
    return [root / "lake" / name for name in names]


def list_file(root: Path) -> Path:
    return hashes_dir(root) / LIST_NAME


def test_hashes_are_kept_by_name_and_files_that_are_gone_are_left_out(tmp_path: Path) -> None:
    a, b = written(tmp_path, "a", "b")
    keep_hashes(tmp_path, [a, b, tmp_path / "lake" / "none"])
    assert kept(tmp_path).sums == {"lake/a": [sum_of(a)], "lake/b": [sum_of(b)]}


def test_without_files_no_list_is_made_and_none_is_needed(tmp_path: Path) -> None:
    keep_hashes(tmp_path, [])
    assert not hashes_dir(tmp_path).exists()
    assert kept(tmp_path).sums == {}


@pytest.mark.parametrize("torn", [b"", b"x", b"\0" * 40, b'0a0b0c0d [["lake/z",1,"00"]]\n'])
def test_a_torn_end_is_cut_by_the_next_append(tmp_path: Path, torn: bytes) -> None:
    a, b = written(tmp_path, "a", "b")
    keep_hashes(tmp_path, [a])
    whole = list_file(tmp_path).read_bytes()
    list_file(tmp_path).write_bytes(whole + torn)
    assert set(kept(tmp_path).sums) == {"lake/a"}
    keep_hashes(tmp_path, [b])
    assert set(kept(tmp_path).sums) == {"lake/a", "lake/b"}
    assert kept(tmp_path).damaged == []


def test_a_damaged_line_costs_its_own_hashes_only_and_mending_removes_it(tmp_path: Path) -> None:
    a, b, c = written(tmp_path, "a", "b", "c")
    for path in (a, b, c):
        keep_hashes(tmp_path, [path])
    text = list_file(tmp_path).read_bytes()
    list_file(tmp_path).write_bytes(text.replace(b"lake/b", b"lake/B"))
    found = kept(tmp_path)
    assert (set(found.sums), found.damaged) == ({"lake/a", "lake/c"}, [2])
    mend(tmp_path)
    assert (set(kept(tmp_path).sums), kept(tmp_path).damaged) == ({"lake/a", "lake/c"}, [])


def test_a_file_replaced_whole_fits_before_and_after_the_rename(tmp_path: Path) -> None:
    (final,) = written(tmp_path, "points")
    for text in ("one", "two", "three"):
        tmp = tmp_path / "lake" / "tmp"
        tmp.write_text(text)
        before = sum_of(final)
        keep_hashes(tmp_path, [final])
        replace_kept(tmp_path, tmp, final)
        assert kept(tmp_path).sums["lake/points"] == [before, sum_of(final)]
        assert final.read_text() == text


def test_the_list_forgets_files_that_are_gone_when_it_is_twice_as_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "REWRITE_BYTES_MIN", 2000)
    (stays,) = written(tmp_path, "stays")
    keep_hashes(tmp_path, [stays])
    for number in range(200):
        (path,) = written(tmp_path, f"gone-{number}")
        keep_hashes(tmp_path, [path])
        path.unlink()
    assert list_file(tmp_path).stat().st_size < 3000
    assert kept(tmp_path).sums["lake/stays"] == [sum_of(stays)]


def test_a_full_disk_costs_a_hash_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = written(tmp_path, "a", "b")
    keep_hashes(tmp_path, [a])
    real = os.pwrite

    def half(fd: int, line: bytes, at: int) -> int:
        return real(fd, line[: len(line) // 2], at)

    monkeypatch.setattr(os, "pwrite", half)
    keep_hashes(tmp_path, [b])
    monkeypatch.undo()
    assert "no room for the hashes of 1 files" in caplog.text
    assert set(kept(tmp_path).sums) == {"lake/a"}
    keep_hashes(tmp_path, [b])
    assert kept(tmp_path).damaged == []
    assert set(kept(tmp_path).sums) == {"lake/a", "lake/b"}


def test_another_error_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (a,) = written(tmp_path, "a")

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        keep_hashes(tmp_path, [a])


def test_four_processes_append_beside_each_other_and_lose_nothing(tmp_path: Path) -> None:
    paths = written(tmp_path, *(f"{who}-{n}" for who in range(4) for n in range(30)))
    code = (
        "import sys; from pathlib import Path; from storage.hashes import keep_hashes\n"
        "root = Path(sys.argv[1])\n"
        "for n in range(30): keep_hashes(root, [root / 'lake' / f'{sys.argv[2]}-{n}'])"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(who)], cwd=ROOT) for who in range(4)
    ]
    assert [one.wait(60) for one in running] == [0] * 4
    assert kept(tmp_path).sums == {f"lake/{p.name}": [sum_of(p)] for p in paths}
