"""The audit log: a line that the disk did not take whole is not said to be noted, and what follows goes on."""

from __future__ import annotations

import resource
from pathlib import Path

from storage.audit import FILE, LOGIN, RELOADED, Act, note, read


def test_a_line_that_was_not_taken_whole_is_not_noted_and_the_next_one_follows(tmp_path: Path) -> None:
    assert note(tmp_path, Act(LOGIN, "duty"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / FILE).stat().st_size + 20, hard))
    try:
        assert not note(tmp_path, Act(LOGIN, "second"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / FILE).read_bytes().count(b"\n") == 1, "a piece of the second line stands there"
    assert note(tmp_path, Act(RELOADED, "third"))
    assert [line["who"] for line in read(tmp_path, verify=True)] == ["duty", "third"]
