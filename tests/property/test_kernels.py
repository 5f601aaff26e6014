"""Kernels and plain Python say the same of 20,000 generated and mutated messages; and without numba all goes on.

The seed is printed; scripts/fuzz kernels goes on for a million and more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import SystemRandom

import pytest

pytest.importorskip("numba")

from tests.fuzz_kernels import Decoders, fuzz_decode, fuzz_scan, number_cases

SUITE = Path(__file__).resolve().parents[3] / "shared" / "data" / "json-suite"


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    return Decoders()


def test_16000_messages_become_the_same_rows_and_the_same_refusals(decoders: Decoders) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_decode(seed, 16_000, decoders)
    # Not a comparison of nothing with nothing: many messages are readings, and of those the kernel takes its part.
    assert told.readable > 4_000
    assert told.taken > told.readable // 3


def test_4000_numbers_are_the_same_to_the_last_bit(decoders: Decoders) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_decode(seed, 4_000, decoders, number_cases)
    assert told.taken > 3 * told.readable // 4 > 2_000


def test_2000_streams_are_the_same_frames_wherever_the_kernel_stops() -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_scan(seed, 2_000)
    assert told.readable > 2_000


@pytest.mark.shared
@pytest.mark.skipif(not SUITE.exists(), reason="the JSON suite is not here")
def test_the_json_suite_is_told_apart_as_by_the_general_decoder(decoders: Decoders) -> None:
    wholes = [path.read_bytes() for path in sorted(SUITE.glob("*.json"))]
    assert len(wholes) > 300
    in_place = [b'{"ts":1790000000000,"v":%s}' % whole for whole in wholes]
    beside = [b'{"ts":1790000000000,"v":1,"x":%s}' % whole for whole in wholes]
    named = [b'{"ts":1790000000000,"v":1,%s:2}' % whole for whole in wholes]
    for payloads in (wholes, in_place, beside, named):
        decoders.check([("cd/g0/p0", payload, 0x32) for payload in payloads])


def test_every_beginning_of_a_message_is_refused_as_by_the_general_decoder(decoders: Decoders) -> None:
    for payload in (
        b'{"ts":1790000000000,"v":-12.5e-1,"q":3,"id":"p0","x":"\xe9\x9b\xa8","y":null}',
        b' [ {"ts":"2026-09-21T14:13:20.125+08:00","v":1} , {"v":2,"ts":1790000000001} ] ',
        b"-12.5e+1 ",
    ):
        decoders.check([("cd/g0/p0", payload[:size], 0x32) for size in range(len(payload) + 1)])


def test_without_numba_the_engine_decodes_polls_and_acknowledges_all_the_same(tmp_path: Path) -> None:
    """The same tests as with it, in processes that cannot import numba, engines among them."""
    (tmp_path / "numba.py").write_text('raise ImportError("numba is not installed")\n')
    tests = [
        "tests/unit/test_decode_json.py",
        "tests/unit/test_mqtt_receipts.py",
        "tests/integration/test_mqtt_poller_listener.py",
        "tests/integration/test_engine_river.py::test_a_reading_by_each_qos_and_version_is_stored_with_its_time_and_value",
    ]
    blocked = "import sys; from ingest.kernels.compiling import IS_COMPILED; sys.exit(IS_COMPILED)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for command in (["-c", blocked], ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
