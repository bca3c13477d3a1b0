"""One service with models that sleep: `python -m benchmarks.live.node edge|worker|scheduler FOLDER`.

As the service's own `__main__`, from the same settings, but with the cards in FOLDER and the model child `sleeper`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from adaptivegen.clock import SystemClock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.process import refuse, run
from adaptivegen.settings import ServiceSettings, load

CARDS, CONDUCT = "cards", "conduct"
Body = Callable[[asyncio.Event], Awaitable[None]]


def conduct_file(folder: Path, node_id: str) -> Path:
    """What a node's model child reads."""
    return folder / CONDUCT / f"{node_id}.json"


def _service(kind: str, folder: Path) -> tuple[ServiceSettings, Body]:
    clock, rng = SystemClock(), random.SystemRandom()

    def child(settings: ServiceSettings) -> list[str]:
        return ["benchmarks.live.sleeper", str(folder / CARDS), str(conduct_file(folder, settings.node_id))]

    if kind == "scheduler":
        from scheduler.service import serve as serve_scheduler
        from scheduler.settings import SchedulerSettings

        scheduler = load(SchedulerSettings)
        cards = scheduler.library().cards()
        return scheduler, lambda stop: serve_scheduler(scheduler, cards=cards, clock=clock, rng=rng, stop=stop)
    if kind == "worker":
        from core_cloud.service import serve as serve_worker
        from core_cloud.settings import WorkerSettings

        worker = load(WorkerSettings)
        return worker, lambda stop: serve_worker(worker, clock=clock, rng=rng, stop=stop, child=child(worker))
    from edge_node.service import serve as serve_edge
    from edge_node.settings import EdgeSettings

    edge = load(EdgeSettings)
    return edge, lambda stop: serve_edge(edge, clock=clock, rng=rng, stop=stop, child=child(edge))


def main() -> int:
    """Read the settings, run until SIGTERM; returns the exit status."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    try:
        settings, serve = _service(kind, folder)
    except AdaptiveGenError as exc:
        return refuse(exc)

    async def body(stop: asyncio.Event) -> None:
        await serve(stop)

    return run(body, grace_s=settings.drain_grace_s)


if __name__ == "__main__":
    sys.exit(main())
