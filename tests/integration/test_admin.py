"""`adaptivegen admin` against a whole scheduler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from adaptivegen.jobs.store import JobMessage
from adaptivegen.placement import Decision
from cli.admin import app
from tests.schedulers import Running, fleet, job_store, new_spec, scheduler, until
from tests.servers import NatsServer
from tests.unit.scheduler.builders import FINAL_S, done, outcome, query, report
from tests.unit.scheduler.test_ratings import rating


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
        audited = json.loads((await run("audit", "--json")).stdout)["audit"]
        assert [(entry["action"], entry["target"]) for entry in audited] == [
            ("put-back", "worker-1"),
            ("drain", "worker-1"),
        ]
        assert {entry["outcome"] for entry in audited} == {"done"}
        assert "put-back" in (await run("audit")).stdout
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


async def test_a_policy_is_set_followed_everywhere_and_kept(own_nats: NatsServer, tmp_path: Path) -> None:
    iterating = query(intent="iterate")
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        scheduler(own_nats.url, tmp_path, node_id="scheduler-2") as other,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        await other.sees(edge_1="healthy", worker_1="healthy")
        assert (await running.place(iterating)).plan == "draft"

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, "policy", *arguments)

        assert "as the scheduler was started" in (await run("diff")).stdout
        refused = await run("set", "cost_iterate=-1")
        assert (refused.exit_code, "cost_iterate is -1.0; allowed: 0 to" in refused.stderr) == (2, True)
        for bad in ("cost_iterate", "cost_iterate=much", "costs=1"):
            assert (await run("set", bad)).exit_code == 2
        assert (await run("set")).exit_code == 2
        made = await run("set", "cost_iterate=0", "draft_weight_iterate=0.2", "--reason", "finals are cheap today")
        assert made.exit_code == 0 and "finals are cheap today" in made.stdout
        assert (await running.place(iterating)).plan == "refine"

        async def follows() -> bool | None:
            return True if (await other.place(iterating)).plan == "refine" else None

        await until("the other scheduler following", follows)
        differing = json.loads((await run("diff", "--json")).stdout)["values"]
        assert [value["name"] for value in differing] == ["draft_weight_iterate", "cost_iterate"]
        assert (await run("set", "--unset", "draft_weight_iterate")).exit_code == 0
        assert "cost_iterate" in (await run("show")).stdout
    async with scheduler(own_nats.url, tmp_path, node_id="scheduler-3") as running:

        async def kept() -> bool | None:
            return True if "cost_iterate" in (await run("diff")).stdout else None

        await until("a new scheduler taking the policy over", kept)
        changes = json.loads((await run("history", "--json")).stdout)["changes"]
        assert [change["number"] for change in changes] == [2, 1]
        assert changes[0]["values"] == {"cost_iterate": 0.0}
        assert changes[1]["by"] == "somebody without a certificate"


async def test_ratings_are_fitted_shown_and_applied(own_nats: NatsServer, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="the extra qoe (scipy) is not installed")
    async with scheduler(own_nats.url, tmp_path) as running, job_store(own_nats.url, tmp_path) as jobs:

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, "qoe", "fit", *arguments)

        none = await run()
        assert none.exit_code == 7 and "no stored rating can be fitted to" in none.stderr
        assert "adaptivegen rate ID" in none.stderr
        for number in range(40):
            late = number % 2 == 0  # people who see a draft after 3 s are as unhappy as if there were none
            one = rating(number, tenant=f"t-{number % 12}", intent="iterate", draft_wait_s=3.0 if late else 0.4)
            one = one.model_copy(update={"final_wait_s": None, "stars": 1 if late else 2})
            one = one.model_copy(update={"id": f"vid-{number}", "final_size": "", "final_steps": 0, "plan": "draft"})
            await jobs.blob.put(one.key, one.encode())
        blind = rating(99, tenant="t-99", draft_wait_s=None)
        await jobs.blob.put(blind.key, blind.encode())
        shown = await run()
        assert shown.exit_code == 0, shown.stderr
        for words in (
            "draft_worst_s",
            "40 ratings of 12 raters",
            "are few",
            "On ratings not seen",
            "1 ratings were left out",
        ):
            assert words in shown.stdout
        fitted = json.loads((await run("--json")).stdout)
        values = {value["name"]: value["fitted"] for value in fitted["values"]}
        assert values["draft_worst_s"] < 10.0
        assert not fitted["better"]
        assert (await run("--apply")).exit_code == 7
        assert (await run("--apply", "--anyway")).exit_code == 0
        in_force = {value.name: value.in_force for value in await running.admin.policy()}
        assert in_force["draft_worst_s"] == pytest.approx(values["draft_worst_s"], rel=1e-3)
        assert "fitted to 40 ratings" in (await running.admin.policy_changes())[-1].reason


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
