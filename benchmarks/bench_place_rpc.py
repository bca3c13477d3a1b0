"""How many calls of `Place` one core answers: one server process on a core of its own, client processes on the others.

`python -m benchmarks.bench_place_rpc`. The server is the gRPC server, the placement service and a view of twelve nodes
that send heartbeats, on uvloop and with a log line for each decision as in a scheduler, without its writers of
decisions and TLS; of the jobs that it places the last 64 stay open. Clients keep a number of calls in flight and send
requests that were encoded before, so that they are never what is slowest. Prints the hardware, the command, calls per
second and the server's CPU time for a call, of each run and their medians, and one line of JSON. The aim is 1,000 calls
per second; while the machine does other work, too, the CPU time tells more. With `--batch` the server's threads do not
interrupt one another when they wake (Linux's SCHED_BATCH, as by `chrt --batch 0`), which is for schedulers that have a
core of their own (docs/adr/0043).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil
import uvloop

from adaptivegen.nodes import HEARTBEAT_S
from adaptivegen.placement import Decision, PlacementQuery, on_query
from adaptivegen.process import collect_seldom
from adaptivegen.rpc.channel import open_channel
from adaptivegen.rpc.placement import PLACE, PlacementServicer, decision_from_wire, query_to_wire
from adaptivegen.rpc.server import RpcServer
from adaptivegen.telemetry import REQUEST_ID_HEADER, carry, configure_logging, span, take_request_id
from benchmarks.bench_place import CLOCK, beat, make_query, make_view
from benchmarks.machine import hardware
from scheduler.placement import Placement
from scheduler.steady import SteadyTime

NODES = 12
OPEN_JOBS = 64
CLIENTS = 2
IN_FLIGHT = 16  # calls of each client
DEADLINE_S = 20.0  # of a call; those in flight wait for one another


async def serve() -> None:
    """Serve until killed, logging as a scheduler does by default; the port goes to stdout, the log nowhere."""
    configure_logging("bench", "bench", "info")
    collect_seldom()
    view = make_view(NODES)
    placement = Placement(view, time=SteadyTime(CLOCK), rng=random.Random(2))
    open_jobs: deque[str] = deque()

    async def place(query: PlacementQuery) -> Decision:
        decision = await placement.place(query)
        open_jobs.append(query.job_id)
        if len(open_jobs) > OPEN_JOBS:
            view.jobs.settle(open_jobs.popleft(), gpu_s=0.0, now_ns=CLOCK.now_ns())
        return decision

    server = RpcServer(rng=random.Random(3))
    PlacementServicer(place, placement.observe, placement.attempted, placement.next_job).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    print(port, flush=True)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    seq = 1
    while True:
        beat(view, NODES, seq=seq, now_ns=CLOCK.now_ns())
        seq += 1
        await CLOCK.sleep(HEARTBEAT_S)


async def ask(port: int, first: int, calls: int) -> None:
    """Connect, say so on stdout, wait for a line on stdin, then make the calls. first: the number of the first job."""
    view = make_view(NODES)
    queries = [make_query(view, first + number) for number in range(calls + 1)]
    requests = [query_to_wire(query) for query in queries]
    channel = open_channel(f"127.0.0.1:{port}", tls=None)
    place: Callable[..., Awaitable[bytes]] = channel.unary_unary(PLACE)
    take_request_id({REQUEST_ID_HEADER: f"req_{first}"})
    with span("asking"):
        metadata = tuple(carry().items())  # as edges send it
    reply = await place(requests[0], timeout=DEADLINE_S, metadata=metadata)
    on_query(decision_from_wire(reply), queries[0])  # it is a server that decides
    print("ready", flush=True)
    sys.stdin.readline()
    left = iter(requests[1:])

    async def keep_asking() -> None:
        for request in left:  # one iterator for all: each takes the next
            await place(request, timeout=DEADLINE_S, metadata=metadata)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(keep_asking())
    await channel.close()
    print("done", flush=True)


@contextmanager
def _process(*arguments: str, cores: Sequence[int], batch: bool = False) -> Iterator[subprocess.Popen[str]]:
    """This module in another process, on these cores where that can be said; killed at the end. Set before it has begun
    threads, so that they have it, too."""
    command = [sys.executable, "-m", "benchmarks.bench_place_rpc", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cores)
        if batch:
            os.sched_setscheduler(process.pid, os.SCHED_BATCH, os.sched_param(0))
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"a process of the benchmark ended early: {process.args!r}")
    return line


def _cpu_s(process: subprocess.Popen[str]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def measure(
    server: subprocess.Popen[str], port: int, *, run: int, calls: int, cores: Sequence[int]
) -> tuple[float, float]:
    """One run: calls per second, and milliseconds of the server's CPU for a call."""
    each = calls // CLIENTS
    with ExitStack() as started:
        clients: list[subprocess.Popen[str]] = []
        for number in range(CLIENTS):
            first = (run * CLIENTS + number) * (each + 1)
            asking = _process("--ask", str(port), "--first", str(first), "--calls", str(each), cores=cores)
            clients.append(started.enter_context(asking))
        for client in clients:
            _line(client)
        cpu_s, begun_s = _cpu_s(server), time.perf_counter()
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        for client in clients:
            _line(client)
        took_s, used_s = time.perf_counter() - begun_s, _cpu_s(server) - cpu_s
    return CLIENTS * each / took_s, used_s / (CLIENTS * each) * 1e3


def compare(runs: int, calls: int, *, batch: bool) -> None:
    """Measure and print."""
    machine = hardware()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with _process("--serve", cores=cores[:1], batch=batch) as server:
        port = int(_line(server))
        measure(server, port, run=0, calls=calls // 4, cores=cores[1:] or cores)  # warm up
        measured = [measure(server, port, run=1 + n, calls=calls, cores=cores[1:] or cores) for n in range(runs)]
    per_s, cpu_ms = [one[0] for one in measured], [one[1] for one in measured]
    print(f"hardware: {machine}")
    print(
        f"command:  python -m benchmarks.bench_place_rpc --runs {runs} --calls {calls}{' --batch' if batch else ''}"
        f" ({CLIENTS} clients with {IN_FLIGHT} calls in flight each, {NODES} nodes, {OPEN_JOBS} open jobs)"
    )
    for name, values, digits in (("calls per second", per_s, 0), ("server's CPU, ms a call", cpu_ms, 3)):
        told = "  ".join(f"{value:.{digits}f}" for value in values)
        middle = statistics.median(values)
        print(f"{name:24s} median {middle:.{digits}f}  {min(values):.{digits}f} - {max(values):.{digits}f}  ({told})")
    result = {"calls_per_s": [round(v, 1) for v in per_s], "server_cpu_ms": [round(v, 4) for v in cpu_ms]}
    print(json.dumps({"benchmark": "place_rpc", "calls": calls, "batch": batch, "hardware": machine, **result}))


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--calls", type=int, default=3000, help="of each run, all clients together")
    parser.add_argument("--batch", action="store_true", help="the server's threads do not interrupt one another; Linux")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    configure_logging("bench", "bench", "error")
    if given.serve:
        uvloop.run(serve())
    elif given.ask:
        uvloop.run(ask(given.ask, given.first, given.calls))
    else:
        compare(given.runs, given.calls, batch=given.batch)


if __name__ == "__main__":
    main()
