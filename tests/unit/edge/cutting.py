"""Edges whose broker and store fail as a test says, and what becomes of their jobs."""

import asyncio
from pathlib import Path
from typing import Any

from adaptivegen.errors import AdaptiveGenError
from adaptivegen.standing import Standing, Standings
from edge_node.sides import Partition
from edge_node.spool.circuit import LONGEST_SETTLE_S
from edge_node.spool.handover import hand_over
from tests.unit.edge.bench import Edge

CALLS = ("get", "head", "put", "put_if_absent", "put_file", "delete")


class Failing:
    """The parts of an edge's centre, which fail while `away`; `calls` counts what was asked of them then."""

    def __init__(self, made: Edge) -> None:
        self.away: AdaptiveGenError | None = None
        self.calls = 0
        blob, bus, kv, queue = made.jobs.blob, made.bus, made.bus.kv, made.bus.work_queue
        outer = self

        def failing(method: Any) -> Any:
            async def call(*args: Any, **kwargs: Any) -> Any:
                if outer.away is not None:
                    outer.calls += 1
                    await asyncio.sleep(0)  # others go on meanwhile
                    raise outer.away
                return await method(*args, **kwargs)

            return call

        class Blob:
            def __getattr__(self, name: str) -> Any:
                method = getattr(blob, name)
                return failing(method) if name in CALLS else method

        made.jobs.blob = Blob()
        bus.kv = failing(kv)  # type: ignore[method-assign]
        bus.work_queue = failing(queue)  # type: ignore[method-assign]


def partition(made: Edge) -> Partition:
    assert made.partition is not None
    return made.partition


async def handed_over(made: Edge) -> None:
    """Give all that is spooled to the centre, which is back."""

    async def again(spec: Any, drafted: bool) -> None:
        return None

    held = partition(made)
    for envelope in held.spool.held:
        spec, record = await hand_over(envelope, spool=held.spool, centre=made.jobs, again=again, node_id="edge-1")
        await made.videos.acceptor.handed(envelope, spec, record)


async def connect(made: Edge) -> None:
    """The centre is back, and has been for long enough."""
    reach = partition(made).reach
    await reach.probe()
    await made.reach_clock.advance(LONGEST_SETTLE_S)
    await reach.probe()
    assert not reach.cut_off


async def drafted(made: Edge, job_id: str) -> None:
    made.model.go.set()
    while (await made.videos.get("t", job_id)).draft is None or made.desk.drafting("t", job_id):
        await asyncio.sleep(0.001)


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def limit(made: Edge, **standing: Any) -> None:
    """What schedulers told last, a moment ago."""
    made.quotas.hear(Standings(at_ns=1, everybody=Standing(**standing)), as_of_ns=made.clock.now_ns())
