"""Scrub finds every flipped bit, wherever it is, and says which file; over a whole folder it finds nothing."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from storage.hashes import LIST_NAME, hashes_dir
from storage.scrub import scrub
from tests.lake_folder import fill, flip, flip_at

FLIPS = 300
NOT_LASTING = {"LOCK", "lock", "list.json"}
"""Locks hold a pid; the list of hot files is replaced every second and is not relied on after a restart."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    fill(root)
    first = scrub(root)
    assert first.findings == []
    assert first.hashed == 0, "every writer keeps the hashes of its own files"
    return root


def lasting(root: Path) -> list[Path]:
    """Every file with a byte in it that is still there after a restart, but SQLite's."""
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and p.stat().st_size)
    return [p for p in files if p.name not in NOT_LASTING and not p.name.startswith("outbox.db")]


def found_in(root: Path) -> list[str]:
    return [finding.path for finding in scrub(root).findings]


def test_a_folder_that_is_whole_has_no_finding_and_every_file_is_looked_at(whole: Path) -> None:
    report = scrub(whole)
    assert report.findings == []
    assert report.hashed == 0
    assert report.files >= len(lasting(whole)) - 1, "all but the list of hashes itself"


def test_every_flipped_bit_is_found_and_its_file_named(whole: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    files = lasting(whole)
    hash_list = hashes_dir(whole) / LIST_NAME
    good = hash_list.read_bytes()
    seen: Counter[str] = Counter()
    for number in range(max(FLIPS, len(files))):
        path = files[number] if number < len(files) else rng.choice(files)
        at, bit = flip(path, rng)
        name = path.relative_to(whole).as_posix()
        assert name in found_in(whole), f"seed {seed}: byte {at}, bit {bit} of {name} ({path.stat().st_size})"
        if path == hash_list:
            path.write_bytes(good)  # the scrub has mended it
        else:
            flip_at(path, at, bit)
        seen[name.split("/")[0] if name.count("/") < 2 else name.split("/")[1]] += 1
    print(dict(seen))
    assert found_in(whole) == []


def test_a_flip_that_makes_a_name_no_file_can_have_is_found_and_the_rest_is_still_looked_at(
    whole: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    entries = sorted((copy / "lake" / "late" / "_delta_log").glob("*.json"))
    entry = next(path for path in entries if b"-0000" in path.read_bytes())
    flip_at(entry, entry.read_bytes().index(b"-0000"), 3)  # "-00" becomes "%00"
    assert b"%0000" in entry.read_bytes()
    found = found_in(copy)
    assert entry.relative_to(copy).as_posix() in found
    assert any("%00" in name for name in found)


def test_a_flip_in_the_outbox_that_breaks_its_structure_is_found(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    (copy / "outbox.db-wal").unlink(missing_ok=True)
    outbox = copy / "outbox.db"
    outbox.write_bytes(outbox.read_bytes()[:100].ljust(8192, b"\xff"))
    assert "outbox.db" in found_in(copy)
    assert any("not every flipped bit" in note for note in scrub(copy).notes)
