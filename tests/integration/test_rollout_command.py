"""`adaptivegen admin rollout` against a whole scheduler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import Result

from tests.integration.test_admin import invoke
from tests.schedulers import fleet, scheduler
from tests.servers import NatsServer
from tests.unit.scheduler.builders import report

LINE, GOOD = "pocket-cloud", "pocket-cloud-mixed"


async def test_the_rollout_command(own_nats: NatsServer, tmp_path: Path) -> None:
    node = report("worker-1", models=(LINE,), line=LINE)
    async with scheduler(own_nats.url, tmp_path) as running, fleet(own_nats.url, node):
        await running.sees(worker_1="healthy")

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, "rollout", *arguments)

        async def told(*arguments: str) -> Any:
            result = await run(*arguments, "--json")
            assert result.exit_code == 0, result.output
            return json.loads(result.stdout)

        for bad, code in (
            (("start", LINE, "no-such-model"), 7),
            (("start", LINE, LINE), 7),
            (("start", LINE, "pocket-draft"), 2),
            (("start", "A.B", GOOD), 2),
            (("start", LINE, GOOD, "--stages", "50,5"), 2),
            (("start", LINE, GOOD, "--stages", "many"), 2),
            (("start", LINE, GOOD, "--risk", "0.7"), 2),
            (("promote", LINE), 7),
            (("rollback", LINE), 7),
        ):
            result = await run(*bad)
            assert result.exit_code == code, (bad, result.output)
        made = await told("start", LINE, GOOD, "--stages", "10,50", "--reason", "smaller")
        assert (made["action"], made["phase"], made["candidate"]) == ("start", "trial", GOOD)
        assert (await run("promote", LINE)).exit_code != 0  # nobody has loaded it
        (line,) = (await told("show"))["lines"]
        assert (line["line"], line["stages"], line["nodes"][0]["loaded"]) == (LINE, [10.0, 50.0], [LINE])
        shown = (await run("show")).stdout
        assert "measured quality" in shown and "failures" in shown and "worker-1" in shown
        assert f"{GOOD} waits for: worker-1 to load {GOOD}" in shown
        assert (await told("pause", LINE))["action"] == "pause"
        assert (await told("show"))["lines"][0]["paused"] is True
        assert (await told("resume", LINE))["action"] == "resume"
        assert (await told("rollback", LINE, "--reason", "changed my mind"))["candidate"] == ""
        history = await run("history")
        assert "changed my mind" in history.stdout and "smaller" in history.stdout
        changes = (await told("history", "--limit", "2"))["changes"]
        assert [change["action"] for change in changes] == ["rollback", "resume"]
        audited = json.loads((await asyncio.to_thread(invoke, running, "audit", "--json")).stdout)["audit"]
        done = [entry["action"] for entry in reversed(audited) if entry["outcome"] == "done"]
        assert done == ["start-rollout", "rollout-pause", "rollout-resume", "rollout-rollback"]
        assert audited[-1]["details"] == {"version": "no-such-model"}  # what was refused is noted, too
