"""How long a placement takes: `Place` over gRPC on loopback, and the decision alone with 12 and 256 nodes.

`python -m benchmarks.bench_place`. Server and client share one process and one loop, so the figure over gRPC contains
both; heartbeats of all nodes arrive every half second meanwhile. Prints the hardware, the command, a table and one line
of JSON. Exit status 1 when the median of `Place` misses its target of 5 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time

import uvloop

from adaptivegen.clock import SystemClock
from adaptivegen.models.card import Refine
from adaptivegen.nodes import HEARTBEAT_S, NodeReport
from adaptivegen.placement import Outcome, PlacementQuery
from adaptivegen.rpc.placement import PlacementServicer
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.rpc.server import RpcServer
from adaptivegen.telemetry import configure_logging
from benchmarks.cards import make_card
from benchmarks.machine import hardware
from scheduler.decide.decide import decide, record
from scheduler.decide.view import NodeTable, View
from scheduler.placement import Placement
from scheduler.steady import SteadyTime

CALLS = 2000
WARM_UP = 200
TARGET_MS = 5.0
CLOCK = SystemClock()


def make_view(nodes: int) -> View:
    """Half edges, half workers in four pools."""
    cards = {
        "draft": make_card("draft", side=128, step_ms=40),
        "cloud": make_card("cloud", side=256, step_ms=400, refine=Refine(sources=("draft",), t0=0.5, steps=12)),
    }
    view = View(nodes=NodeTable(), cards=cards, decider="scheduler-1")
    beat(view, nodes, seq=0, now_ns=CLOCK.now_ns())
    return view


def beat(view: View, nodes: int, *, seq: int, now_ns: int) -> None:
    """One heartbeat of every node."""
    for number in range(nodes):
        kind = "edge" if number % 2 else "worker"
        report = NodeReport(
            node_id=f"{kind}-{number}",
            kind="edge" if number % 2 else "worker",
            seq=seq,
            sent_at_ns=now_ns,
            started_at_ns=1,
            pool="" if kind == "edge" else f"pool-{number % 8}",
            models=("draft",) if kind == "edge" else ("cloud",),
            grpc_address=f"127.0.0.1:{number + 1}",
            lends=view.cards["draft"].digest if kind == "edge" else "",
            in_flight=number % 2,
            remaining_s=float(number % 7),
        )
        view.hear(report, now_ns=now_ns)


def make_query(view: View, number: int) -> PlacementQuery:
    """The render of one clip."""
    return PlacementQuery(
        job_id=f"vid_{number:026d}",
        tenant="bench",
        edge_id="edge-1",
        intent="render",
        draft_model="draft",
        cloud_model="cloud",
        width=256,
        height=256,
        frames=24,
        draft_digest=view.cards["draft"].digest,
    )


def time_decide(nodes: int) -> list[float]:
    """Milliseconds of `decide` with `record`; each job ends sixteen placements later."""
    view, rng, times_ms = make_view(nodes), random.Random(1), []
    for number in range(CALLS + WARM_UP):
        now_ns = CLOCK.now_ns()
        if number % 100 == 0:
            beat(view, nodes, seq=number + 1, now_ns=now_ns)
        query = make_query(view, number)
        begun = time.perf_counter()
        record(view, query, decide(view, query, now_ns=now_ns, rng=rng), now_ns=now_ns)
        times_ms.append((time.perf_counter() - begun) * 1e3)
        view.jobs.settle(f"vid_{number - 16:026d}", gpu_s=0.0, now_ns=now_ns)
    return times_ms[WARM_UP:]


async def time_place(nodes: int) -> list[float]:
    """Milliseconds of `Place` over gRPC, one call after another."""
    view = make_view(nodes)
    placement = Placement(view, time=SteadyTime(CLOCK), rng=random.Random(2))
    server = RpcServer(rng=random.Random(3))
    PlacementServicer(placement.place, placement.observe, placement.attempted, placement.next_job).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    client = PlacementClient([f"127.0.0.1:{port}"], clock=CLOCK, budget_s=5.0)
    times_ms: list[float] = []

    async def keep_beating() -> None:
        seq = 1
        while True:
            beat(view, nodes, seq=seq, now_ns=CLOCK.now_ns())
            seq += 1
            await CLOCK.sleep(HEARTBEAT_S)

    async with asyncio.TaskGroup() as group:
        beating = group.create_task(keep_beating())
        for number in range(CALLS + WARM_UP):
            begun = time.perf_counter()
            await client.place(make_query(view, number))
            times_ms.append((time.perf_counter() - begun) * 1e3)
            over = Outcome(
                job_id=f"vid_{number:026d}", edge_id="edge-1", worker_id="", plan="refine", status="completed"
            )
            await placement.observe(over)
        beating.cancel()
    await client.close()
    await server.drain(grace_s=1.0)
    return times_ms[WARM_UP:]


def summary(times_ms: list[float]) -> dict[str, float]:
    """Median, 99th percentile and quartiles in milliseconds."""
    quarters = statistics.quantiles(times_ms, n=4)
    return {
        "median_ms": round(statistics.median(times_ms), 3),
        "p25_ms": round(quarters[0], 3),
        "p75_ms": round(quarters[2], 3),
        "p99_ms": round(statistics.quantiles(times_ms, n=100)[98], 3),
    }


def main() -> int:
    """Measure and print; returns the exit status."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    configure_logging("bench", "bench", "error")
    results = {
        "place_12_nodes": summary(uvloop.run(time_place(12))),
        "decide_12_nodes": summary(time_decide(12)),
        "decide_256_nodes": summary(time_decide(256)),
    }
    print(f"hardware: {hardware()}")
    print(f"command:  python -m benchmarks.bench_place ({CALLS} calls each, load average {os.getloadavg()[0]:.1f})")
    for name, values in results.items():
        print(f"{name:17s}", "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    print(json.dumps({"benchmark": "place", "calls": CALLS, "hardware": hardware(), **results}))
    return 0 if results["place_12_nodes"]["median_ms"] <= TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
