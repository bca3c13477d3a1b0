"""The whole path on one machine: python -m benchmarks.bench_path [--runs N]

Starts one scheduler, one worker, two edges, broker and cache, and measures through the SDK, from the request on:
first draft frame (the first step's look), draft complete, final complete, and the first byte of the same request asked
again at the other edge. Then the CPU time the idle system uses, and the memory of each process. One video before the
measured ones is not counted: it brings every process to the state it stays in.

Figures are medians with the smallest and the largest. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

from adaptivegen.clock import Clock, SystemClock
from adaptivegen.sdk.aio import AsyncClient
from benchmarks.machine import hardware
from cli.demo import PROMPTS, Row, first_byte, watch
from cli.places import system_options
from cli.progress import Display
from cli.system.supervisor import System, running_system

FIRST_SEED = 1000
IDLE_S = 20.0
SETTLE_S = 3.0
MIB = 1024 * 1024
TARGETS = {"first_look_s": 0.5, "draft_s": 1.5, "final_s": 20.0, "repeat_first_byte_s": 0.05, "idle_cpu_percent": 10.0}


async def measure_video(client: AsyncClient, other: AsyncClient, seed: int, *, clock: Clock) -> dict[str, float | None]:
    """One new video at `client`, then the same request at `other`. Seconds after each request."""
    prompt = PROMPTS[seed % len(PROMPTS)][0]
    row = Row(prompt)
    started_s = clock.monotonic_s()
    handle = await client.submit(prompt, seed=seed)
    await watch(handle, row, started_s=started_s, clock=clock, display=Display(quiet=True))
    await handle.result()
    again = Row(prompt)
    started_s = clock.monotonic_s()
    repeat = await (await other.submit(prompt, seed=seed)).result(timeout_s=60)
    await first_byte(repeat, again, started_s=started_s, clock=clock)
    return {
        "first_look_s": row.first_look_s,
        "draft_s": row.draft_s,
        "final_s": row.final_s,
        "repeat_first_byte_s": again.first_byte_s if repeat.video.cached else None,
    }


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds a process has used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure_idle(system: System, *, clock: Clock) -> tuple[float, dict[str, float]]:
    """CPU of everything in percent of one core over `IDLE_S`, and MiB of resident memory by process (with children)."""
    await clock.sleep(SETTLE_S)
    mine = psutil.Process()
    processes = [mine, *mine.children(recursive=True)]  # the supervisor runs in this process
    before_s, started_s = sum(map(cpu_s, processes)), clock.monotonic_s()
    await clock.sleep(IDLE_S)
    percent = 100 * (sum(map(cpu_s, processes)) - before_s) / (clock.monotonic_s() - started_s)
    memory: dict[str, float] = {}
    for plan in system.plans:
        pid = system.pid(plan.name)
        if pid is None:
            continue
        parent = psutil.Process(pid)
        memory[plan.name] = round(parent.memory_info().rss / MIB, 1)
        for number, child in enumerate(parent.children(recursive=True), start=1):
            memory[f"{plan.name}/child-{number}"] = round(child.memory_info().rss / MIB, 1)
    return percent, memory


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


async def measure(folder: Path, runs: int) -> dict[str, object]:
    """All figures."""
    clock = SystemClock()
    found: dict[str, list[float]] = {}
    missed = 0
    options = system_options(folder, edges=2, workers=1)
    async with running_system(options, clock=clock, announce=lambda line: print(line, file=sys.stderr)) as system:
        first, second = system.edge_urls
        async with AsyncClient(first) as one, AsyncClient(second) as two:
            for client, other in ((one, two), (two, one)):
                await measure_video(client, other, FIRST_SEED - 1 - (client is two), clock=clock)
            for run in range(runs):
                client, other = (one, two) if run % 2 == 0 else (two, one)
                for name, value in (await measure_video(client, other, FIRST_SEED + run, clock=clock)).items():
                    if value is None:
                        missed += 1
                    else:
                        found.setdefault(name, []).append(value)
                print(f"run {run + 1} of {runs} done", file=sys.stderr)
        idle_percent, memory = await measure_idle(system, clock=clock)
    figures: dict[str, object] = {name: spread(values) for name, values in found.items()}
    return {**figures, "idle_cpu_percent": round(idle_percent, 2), "memory_mib": memory, "not_seen": missed}


def show(figures: dict[str, object], runs: int) -> None:
    """The figures for a person."""
    print(f"{'':24}{'median':>10}{'min':>10}{'max':>10}{'target':>10}   ({runs} runs)")
    for name, target in TARGETS.items():
        value = figures.get(name)
        if isinstance(value, dict):
            print(f"{name:24}{value['median']:>10}{value['min']:>10}{value['max']:>10}{target:>10}")
        else:
            print(f"{name:24}{value!s:>10}{'':20}{target:>10}")
    print("resident memory, MiB:", json.dumps(figures["memory_mib"]))
    if figures["not_seen"]:
        print(f"{figures['not_seen']} figure(s) were not seen (no look, or the repeat was not a hit)")


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    machine, command = hardware(), f"python -m benchmarks.bench_path --runs {runs}"
    with tempfile.TemporaryDirectory(prefix="adaptivegen-bench-") as folder:
        figures = asyncio.run(measure(Path(folder), runs))
    print(f"hardware: {machine}\ncommand:  {command}")
    show(figures, runs)
    print(json.dumps({"benchmark": "path", "hardware": machine, "command": command, "runs": runs, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
