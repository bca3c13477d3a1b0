"""`adaptivegen admin` against a whole scheduler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from typer.testing import CliRunner, Result

from adaptivegen.jobs.store import JobMessage
from adaptivegen.placement import Decision
from cli.admin import app
from tests.schedulers import Running, fleet, job_store, new_spec, scheduler
from tests.servers import NatsServer
from tests.unit.scheduler.builders import FINAL_S, done, outcome, report


def invoke(running: Running, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--scheduler", running.address], env={"COLUMNS": "200"})


async def test_the_admin_command(own_nats: NatsServer, tmp_path: Path) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
        job_store(own_nats.url, tmp_path) as jobs,
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        spec = new_spec()
        await jobs.submit(spec)

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, *arguments)

        shown = await run("nodes", "--json")
        assert shown.exit_code == 0
        assert {node["node_id"] for node in json.loads(shown.stdout)["nodes"]} == {"edge-1", "worker-1"}
        assert "worker-1" in (await run("nodes")).stdout

        assert spec.id in (await run("jobs")).stdout
        assert json.loads((await run("jobs", "--json")).stdout)["jobs"][0]["id"] == spec.id

        explained = await run("explain", spec.id)
        assert explained.exit_code == 0
        for words in ("Plan refine was decided by scheduler-1", "not possible", "Reasons:", "first look"):
            assert words in explained.stdout
        decision = json.loads((await run("explain", spec.id, "--json")).stdout)["decision"]
        assert Decision.model_validate(decision) == spec.decision

        assert (await run("drain", "worker-1")).stdout == "worker-1 is draining\n"
        assert (await run("drain", "worker-1", "--undo")).exit_code == 0
        assert (await run("drain", "worker-9")).exit_code == 7
        assert (await run("explain", "nonsense")).exit_code == 2
    result = await asyncio.to_thread(invoke, running, "nodes")
    assert result.exit_code == 3


async def test_what_was_learned_is_shown(own_nats: NatsServer, tmp_path: Path) -> None:
    works = tuple(done(number, 3 * FINAL_S) for number in range(1, 9))
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1", finished=works)),
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        decision = await running.place()
        await running.placer.report(outcome(decision, final_s=19.0, draft_s=0.4))
        shown = await asyncio.to_thread(invoke, running, "predictions")
        assert shown.exit_code == 0
        for words in ("worker-1", "pocket-cloud", "final refine", "100 %"):
            assert words in shown.stdout
        listed = json.loads((await asyncio.to_thread(invoke, running, "predictions", "--json")).stdout)
        assert [pace["observations"] for pace in listed["paces"]] == [8]
        assert [part["part"] for part in listed["accuracies"]] == ["draft", "final refine"]


async def test_dead_letters_are_shown_with_their_jobs_and_reasons(own_nats: NatsServer, tmp_path: Path) -> None:
    async with scheduler(own_nats.url, tmp_path) as running, job_store(own_nats.url, tmp_path) as jobs:
        spec = new_spec()
        message = JobMessage(tenant="local", id=spec.id)
        await jobs.bus.dead_letter("default", message.encode(), reason="claimed 3 times", msg_id="1")
        await jobs.bus.dead_letter("default", b"\xff", reason="not a job message", msg_id="2")
        shown = await asyncio.to_thread(invoke, running, "dead-letters")
        assert shown.exit_code == 0
        for words in (spec.id, "claimed 3 times", "(unreadable)", "not a job message"):
            assert words in shown.stdout
        listed = json.loads((await asyncio.to_thread(invoke, running, "dead-letters", "--json")).stdout)
        assert [letter["job_id"] for letter in listed["dead_letters"]] == ["", spec.id]
        newest = json.loads((await asyncio.to_thread(invoke, running, "dead-letters", "--json", "--limit", "1")).stdout)
        assert len(newest["dead_letters"]) == 1
        assert (await asyncio.to_thread(invoke, running, "dead-letters", "--limit", "201")).exit_code == 2
