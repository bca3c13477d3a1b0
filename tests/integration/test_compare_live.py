"""The live comparison, short: whole system, shaped links, two policies; every number that it tells is there."""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys

import pytest

from adaptivegen.clock import SystemClock
from benchmarks.compare_live import measure, report
from benchmarks.live.links import Link, shaped
from cli.system.ports import free_ports

CLOCK = SystemClock()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other addresses of loopback are Linux's")
async def test_two_policies_are_compared_on_a_running_system() -> None:
    options = argparse.Namespace(runs=1, parts=1, seconds=6.0, seed=5, load=0.6, calm=False)
    found = await measure(options, ["ours", "round_robin"], clock=CLOCK)
    for name in ("ours", "round_robin"):
        (run,) = found.runs[name]
        assert run.requests >= 5 and run.unplaced == 0
        assert 2.0 < run.qoe <= 5.0 and 0.5 < run.gpu_s < 2.0
        assert 0.1 < run.first_p95_s < run.final_p95_s < 30.0
    told = report(found)
    assert told["predictions"]
    verdicts = told["ours_less_others"]
    assert isinstance(verdicts, dict) and verdicts["qoe"]["round_robin"]["ours"] == "one part"
    assert not math.isnan(verdicts["qoe"]["round_robin"]["mean"])


async def test_a_link_delays_both_ways_and_keeps_the_order() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    here, there = free_ports(2)
    server = await asyncio.start_server(echo, "127.0.0.1", there)
    link = Link(0.02, 0.02)
    async with (
        server,
        shaped(("127.0.0.1", here), ("127.0.0.1", there), link, clock=CLOCK, rng=random.Random(1)),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        begun_s = CLOCK.monotonic_s()
        for number in range(50):
            writer.write(f"{number}\n".encode())
            await CLOCK.sleep(0.001)
        writer.write_eof()
        lines = [line async for line in reader]
        assert [int(line) for line in lines] == list(range(50))
        assert CLOCK.monotonic_s() - begun_s >= 2 * link.delay_s
        writer.close()


async def test_nobody_at_the_other_end_is_seen_at_once() -> None:
    here, there = free_ports(2)
    async with shaped(("127.0.0.1", here), ("127.0.0.1", there), Link(0.0, 0.0), clock=CLOCK, rng=random.Random(1)):
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        assert await reader.read() == b""
        writer.close()
