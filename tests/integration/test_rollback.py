"""A rollback that an operator orders while people have the version: real broker, scheduler, edge, worker, models."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.integration.real_nodes import until
from tests.integration.test_rollout import GOOD, LINE, System, edges_have_read, system
from tests.servers import NatsServer

LONG: dict[str, Any] = {"steps": 12, "size": "256x256"}  # so long that some still wait when the order is given
QUEUED = 3


async def test_after_a_rollback_by_hand_sessions_have_the_stable_version_and_what_waited_is_made_once(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with system(own_nats.url, tmp_path, "worker-1") as one:
        await one.start(GOOD, stages=(50.0,), stage_s=600.0)
        await one.canary(GOOD)
        await edges_have_read()
        asked = {f"s-{number}": await one.submit(f"s-{number}") for number in range(6)}
        tried = [session for session, video in asked.items() if video["model_version"] == GOOD]
        assert 0 < len(tried) < len(asked)
        assert (await one.finished(asked[tried[0]]["id"]))["model_version"] == GOOD
        for video in asked.values():
            await one.finished(video["id"])
        queued = [await one.submit(tried[0], seed=1000 + number, **LONG) for number in range(QUEUED)]
        assert {video["model_version"] for video in queued} == {GOOD}
        ordered = await one.admin.steer_rollout(LINE, "rollback", reason="people do not like it")
        assert (ordered.stable, ordered.candidate) == (LINE, "")
        assert (await one.status(queued[-1]["id"]))["status"] == "queued"

        await until("new requests being for the stable version", lambda: _asks_for_stable(one, tried[0]))
        for session in tried:
            after = await one.video(session)
            assert (after["model_version"], after["status"], after["notes"]) == (LINE, "completed", [])
        for video in queued:
            _made_once(await one.finished(video["id"]), tmp_path)
        last = await one.status(queued[-1]["id"])
        alike = await one.finished((await one.submit(seed=1000 + QUEUED - 1, **LONG))["id"])
        assert (alike["model_version"], alike["cached"]) == (LINE, False)
        same = alike["final"]["sha256"] == last["final"]["sha256"]
        assert same == (last["model_version"] == LINE)  # what was told is what made it
        await until("the version being ended", lambda: _stable_alone(one))
        assert (await one.last()).reason == "people do not like it"


async def _asks_for_stable(one: System, session: str) -> bool | None:
    await asyncio.sleep(0.5)  # each is a video
    return True if (await one.submit(session))["model_version"] == LINE else None


async def _stable_alone(one: System) -> bool | None:
    return True if (await one.line()).nodes[0].loaded == (LINE,) else None


def _made_once(video: dict[str, Any], folder: Path) -> None:
    """By the version that it tells, which is said where it is not the one that it was asked of."""
    assert video["status"] == "completed" and video["model_version"] in (GOOD, LINE)
    by_other = [f"{GOOD} was not loaded at the worker, so {LINE} made the final"]
    assert video["notes"] == (by_other if video["model_version"] == LINE else [])
    (manifest,) = (folder / "store" / "jobs").glob(f"*/{video['id']}/manifest")
    told = json.loads(manifest.read_bytes())
    assert (told["epoch"], told["made_with"]) == (1, video["model_version"])
    (clip,) = (folder / "store" / "out").glob(f"*/{video['id']}/*/*.mp4")
    assert clip.stem == video["final"]["sha256"]
