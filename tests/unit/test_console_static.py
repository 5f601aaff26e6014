"""The page's files: found by name, also new ones, and what names nobody has cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from console import static_files
from console.static_files import StaticFiles


def test_names_nobody_has_do_not_look_through_the_folder_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked for without a login, on the engine's own loop."""
    now, looks = [0.0], []
    monkeypatch.setattr(static_files.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Path, "rglob", lambda folder, _: looks.append(folder) or folder.iterdir())
    (tmp_path / "a.js").write_text("1")
    files = StaticFiles(tmp_path)
    assert files._find("a.js") is not None
    for number in range(100):
        assert files._find(f"../{number}") is None
    assert len(looks) == 1
    (tmp_path / "b.js").write_text("2")
    now[0] = static_files.LOOK_S
    assert files._find("b.js") is not None
