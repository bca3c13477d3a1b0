"""What a dashboard is shown: bounded, what needs a look first, and how much there is in all."""

from __future__ import annotations

import random
from typing import Any, cast

from pydantic import TypeAdapter

from adaptivegen.clock import SystemClock
from scheduler.admin import Admin
from scheduler.decide.recent import Recent
from scheduler.decide.view import View
from scheduler.placement import Placement
from scheduler.snapshot import MAX_DECISIONS, MAX_ROWS, Snapshot, Snapshots
from scheduler.steady import SteadyTime
from tests.unit.scheduler.builders import open_job, query, report, rollouts_of, view


class Pools:
    """No pool is advised."""

    advice: dict[str, Any] = {}  # noqa: RUF012


class Shown:
    """A scheduler's view and the snapshots of it."""

    def __init__(self, seen: View) -> None:
        clock = SystemClock()
        time = SteadyTime(clock)
        away = cast(Any, None)
        admin = Admin(
            seen,
            away,
            recent=Recent(),
            drains=away,
            scaling=cast(Any, Pools()),
            policies=away,
            quotas=away,
            rollouts=rollouts_of(seen, clock),
            purger=away,
            audit=away,
            time=time,
        )
        self.now_ns = time.now_ns()
        self.placement = Placement(seen, time=time, rng=random.Random(1))
        plans, recent = self.placement.plans, self.placement.recent
        self.snapshots = Snapshots(seen, admin, plans=plans, recent=recent, clock=clock, time=time)


async def test_of_many_rows_the_first_are_shown_and_how_many_there_are() -> None:
    seen = view()
    shown = Shown(seen)
    for number in range(MAX_ROWS + 5):
        seen.hear(report(f"worker-{number:04d}"), now_ns=shown.now_ns)
        seen.jobs.place(open_job(f"vid_{number:026d}", tenant=f"tenant-{number:04d}"))
    seen.hear(report("worker-9999", draining=True), now_ns=shown.now_ns)
    snapshot = await shown.snapshots.take()
    assert len(snapshot.nodes) == len(snapshot.tenants) == MAX_ROWS
    states = [node.state for node in snapshot.nodes]
    assert set(states[:3]) == {"draining", "stale"} and set(states[3:]) == {"healthy"}  # the builders' two are old
    told = snapshot.in_all
    assert (told.nodes, told.healthy, told.tenants) == (MAX_ROWS + 8, MAX_ROWS + 5, MAX_ROWS + 6)
    assert snapshot.open_jobs == MAX_ROWS + 5


async def test_the_last_decisions_are_shown_newest_first_with_their_reasons() -> None:
    seen = view()
    shown = Shown(seen)
    for kind in ("edge-1", "worker-1"):
        seen.hear(report(kind, seq=2), now_ns=shown.now_ns)
    for number in range(MAX_DECISIONS + 3):
        last = await shown.placement.place(query(job_id=f"vid_{number:026d}", tenant="acme"))
    refused = await shown.placement.place(query(job_id="vid_" + "9" * 26, tier="priority"))
    snapshot = await shown.snapshots.take()
    assert len(snapshot.decisions) == MAX_DECISIONS
    first, second = snapshot.decisions[:2]
    assert (first.plan, first.refused, first.refused_param) == ("refuse", refused.refused, refused.refused_param)
    chosen = last.chosen()
    assert chosen is not None
    assert (second.job_id, second.tenant, second.reasons) == (last.job_id, "acme", last.reasons)
    assert (second.draft_s, second.final_s, second.qoe) == (chosen.draft_s, chosen.final_s, chosen.qoe)
    assert {(one.plan, one.count) for one in snapshot.plans} == {(last.plan, MAX_DECISIONS + 3), ("refuse", 1)}


async def test_a_snapshot_is_what_the_document_says_it_is() -> None:
    snapshot = await Shown(view()).snapshots.take()
    adapter = TypeAdapter(Snapshot)
    assert adapter.validate_json(adapter.dump_json(snapshot)) == snapshot
