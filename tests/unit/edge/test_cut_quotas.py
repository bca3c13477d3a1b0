"""Quotas while an edge decides alone: what schedulers told it last, and what it accepted itself."""

import asyncio
from pathlib import Path

import pytest

from adaptivegen.errors import NodeUnavailable, QuotaExceeded, StorageFailure
from adaptivegen.placement import Candidate
from edge_node.partition import count_spooled
from tests.unit.edge.bench import edge
from tests.unit.edge.cutting import Failing, files_in, limit, partition


@pytest.mark.parametrize("cut_off", [True, False], ids=["cut off", "no scheduler"])
async def test_an_edge_that_decides_alone_keeps_to_the_quota_it_heard_of(tmp_path: Path, cut_off: bool) -> None:
    async with edge(tmp_path) as made:
        limit(made, concurrent_jobs=3, open_jobs=1)
        made.placer.error = NodeUnavailable("away")
        if cut_off:
            Failing(made).away = StorageFailure("away")
            partition(made).reach.trip(StorageFailure("away"))
        first = await made.create("a", plan="draft")
        second = await made.create("b", seed=8)
        for _ in range(2):
            with pytest.raises(QuotaExceeded) as raised:
                await made.create("c", seed=9)
        assert (raised.value.param, bool(raised.value.retry_after_s)) == ("concurrent_jobs", True)
        assert await made.create("b", seed=8) == second  # it is accepted already
        assert (len(partition(made).spool), len(await made.specs())) == ((2, 0) if cut_off else (0, 2))
        made.quotas.ended(first.id)
        third = await made.create("c", seed=9)
        assert third.status == "queued"


async def test_a_key_whose_request_was_refused_may_be_sent_again_in_a_cut(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        limit(made, concurrent_jobs=0)
        made.placer.error = NodeUnavailable("away")
        with pytest.raises(QuotaExceeded):
            await made.create()
        limit(made)
        Failing(made).away = StorageFailure("away")
        partition(made).reach.trip(StorageFailure("away"))
        assert (await made.create()).status == "queued"


async def test_requests_of_one_key_that_come_together_are_one_job_of_the_quota(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        limit(made, concurrent_jobs=1)
        Failing(made).away = StorageFailure("away")
        records = await asyncio.gather(*(made.create() for _ in range(4)))
        assert len({record.id for record in records}) == 1
        with pytest.raises(QuotaExceeded):
            await made.create("another", seed=8)


async def test_what_a_tenant_used_here_before_a_restart_counts_and_leaves_nothing_behind_when_refused(
    tmp_path: Path,
) -> None:
    away = StorageFailure("away")
    async with edge(tmp_path) as before:
        Failing(before).away = away
        partition(before).reach.trip(away)
        limit(before, concurrent_jobs=1)
        kept = await before.create("a", plan="cloud")
    files = files_in(tmp_path)
    async with edge(tmp_path, before=before) as made:
        partition(made).reach.trip(away)
        limit(made, concurrent_jobs=1)
        await count_spooled(partition(made).spool, made.quotas, node_id="edge-1")
        with pytest.raises(QuotaExceeded):
            await made.create("b", seed=8)
        assert partition(made).spool.ids("t") == [kept.id]
        assert files_in(tmp_path) == files


async def test_a_final_is_reckoned_alone_as_the_scheduler_reckoned_before(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        candidate = Candidate(plan="refine", feasible=True, reason="", gpu_s=6.0)
        made.placer.changes = {"candidates": (candidate,), "final_steps": 8}
        await made.create("a")
        limit(made, gpu_seconds_per_hour=10.0)
        made.placer.error = NodeUnavailable("away")
        alone = await made.create("b", seed=8, plan="cloud", steps=8)
        chosen = (await made.jobs.spec("t", alone.id)).decision.chosen()
        assert chosen is not None and chosen.gpu_s == pytest.approx(6.0)
        with pytest.raises(QuotaExceeded) as raised:
            await made.create("c", seed=9, plan="cloud", steps=8)
        assert raised.value.param == "gpu_seconds_per_hour"
        assert (await made.create("d", seed=9, plan="draft")).status == "queued"


async def test_a_request_that_the_centre_had_admitted_before_it_was_cut_is_not_refused(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        limit(made, concurrent_jobs=0)
        put_if_absent = made.jobs.blob.put_if_absent

        async def cut_at_spec(key: str, data: bytes) -> bool:
            if key.endswith("/spec"):
                raise StorageFailure("away")
            return await put_if_absent(key, data)

        made.jobs.blob.put_if_absent = cut_at_spec  # type: ignore[method-assign]
        record = await made.create()
        assert partition(made).spool.state("t", record.id) == "begun"
        partition(made).reach.trip(StorageFailure("away"))
        with pytest.raises(QuotaExceeded):
            await made.create("another", seed=8)
