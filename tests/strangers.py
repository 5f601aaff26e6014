"""Clients that others wrote, for tests: where they are and how they are run.

Those of Node stand in a folder of the cache that scripts/tools.sh fills from tests/speakers/package-lock.json.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engines import ROOT

SPEAKERS = ROOT / "tests" / "speakers"


def node_modules() -> Path | None:
    """The folder of the locked npm packages, None where it was not made."""
    digest = hashlib.sha256((SPEAKERS / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = cache / "yuzui" / f"speakers-{digest}" / "node_modules"
    return found if (found / "mqtt").is_dir() and shutil.which("node") else None


needs_node = pytest.mark.skipif(
    node_modules() is None,
    reason="SKIPPED: no node with MQTT.js and Tahu here; scripts/test fetches them where node, npm and a registry are",
)


def run_node(script: str, *arguments: str, stdin: str = "") -> str:
    """A script of tests/speakers to its end; what it printed."""
    done = subprocess.run(
        ["node", str(SPEAKERS / script), *arguments],
        input=stdin, capture_output=True, text=True, timeout=60, check=False, env=node_env(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def node_env() -> dict[str, str]:
    """An environment in which node finds the locked packages."""
    return {**os.environ, "NODE_PATH": str(node_modules())}
