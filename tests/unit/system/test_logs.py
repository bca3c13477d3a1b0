"""Logs that stay small while their processes write."""

import asyncio
from pathlib import Path

from adaptivegen.clock import ManualClock
from cli.system.logs import LOOK_EVERY_S, keep_small, rotate


def test_a_log_over_its_bound_is_kept_once_and_begun_anew_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "edge-1.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not rotate(log, max_bytes=100)
        writer.write(b"b")
        assert rotate(log, max_bytes=100)
        assert (log.read_bytes(), (tmp_path / "edge-1.log.1").read_bytes()) == (b"", b"a" * 100 + b"b")
        writer.write(b"c" * 101)
        assert rotate(log, max_bytes=100)
        writer.write(b"d")
    assert log.read_bytes() == b"d"
    assert (tmp_path / "edge-1.log.1").read_bytes() == b"c" * 101
    assert (tmp_path / "edge-1.log.1").stat().st_mode & 0o077 == 0
    assert len(list(tmp_path.iterdir())) == 2


async def test_all_logs_are_looked_after_although_one_cannot_be(tmp_path: Path) -> None:
    clock = ManualClock()
    blocked, good = tmp_path / "blocked.log", tmp_path / "good.log"
    for log in (blocked, good):
        log.write_bytes(b"x" * 11)
    (tmp_path / "blocked.log.1").mkdir()
    keeping = asyncio.get_running_loop().create_task(
        keep_small([blocked, good, tmp_path / "absent.log"], clock=clock, max_bytes=10)
    )
    async with asyncio.timeout(10):
        while good.stat().st_size:
            await clock.advance(LOOK_EVERY_S)
            await asyncio.sleep(0.001)
    assert blocked.stat().st_size == 11
    keeping.cancel()
    await asyncio.wait({keeping})
