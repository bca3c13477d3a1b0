"""An edge that is cut off from the real broker, the store, or both: it goes on, and hands over when they are back."""

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.centre import PROMPT, Centre, Ports, post, ready, spooled, spooling_edge, when
from tests.integration.cut_edges import FIRST_LOOK_S, client_of, empty, events_of, listed_by_all, stored
from tests.integration.real_nodes import scheduler, until, worker
from tests.servers import NatsServer


@pytest.fixture
def centre(own_nats: NatsServer, tmp_path: Path) -> Centre:
    return Centre(own_nats, tmp_path)


@pytest.mark.parametrize("what", ["broker", "store", "folder", "both"])
async def test_a_job_accepted_while_cut_off_is_drafted_told_and_handed_over_once(centre: Centre, what: str) -> None:
    ports = Ports(centre)
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        centre.cut(what)
        first = await post(client, seed=1)  # nobody knows of the cut yet
        said = await ready(client, "cut off")
        assert said["cut_off"]["why"]
        await when(client, first["id"], draft=True)  # the model is free
        begun_s = time.monotonic()
        second = await post(client, seed=2)
        async for event in events_of(client, second["id"]):
            if event["type"] in ("draft.look", "draft.completed"):
                break
        assert time.monotonic() - begun_s < FIRST_LOOK_S
        assert "cut off" in second["notes"][0]
        drafted = await when(client, second["id"], draft=True)
        content = await client.get(f"/v1/videos/{second['id']}/content", params={"variant": "draft"})
        assert len(content.content) == drafted["draft"]["size_bytes"]
        listed = (await client.get("/v1/videos")).json()
        assert [video["id"] for video in listed["data"]] == [second["id"], first["id"]]
        assert listed["partial"] is True
        assert await listed_by_all(node) == ([second["id"], first["id"]], True)
        assert spooled(ports) == [first["id"], second["id"]]
        centre.heal(what)
        await empty(ports)
        await ready(client, "ready")
        for video in (first, second):
            parts = await stored(centre, video["id"])
            assert parts["parts"] == ["draft", "spec"]
            assert len(parts["drafts"]) == 1
            told = (await client.get(f"/v1/videos/{video['id']}")).json()
            assert (told["status"], told["draft"]["sha256"]) == ("queued", parts["drafts"][0].removesuffix(".mp4"))
        assert "handed over" in told["notes"][0]  # the second's: of the first the centre may have had the spec before
        assert await listed_by_all(node) == ([second["id"], first["id"]], False)
        # One whose first try fell into the end of the cut is tried again after the other.
        assert sorted(await centre.messages()) == [first["id"], second["id"]]


async def test_an_open_stream_goes_on_to_the_final_which_is_then_a_hit_while_cut_off(centre: Centre) -> None:
    ports = Ports(centre)
    async with (
        spooling_edge(ports) as node,
        client_of(node) as client,
        worker(centre.nats.url, centre.folder),
    ):
        await ready(client, "ready")
        centre.cut("both")
        await ready(client, "cut off")
        video = await post(client, steps=2)
        told = []
        async for event in events_of(client, video["id"]):
            told.append(event)
            if event["type"] == "draft.completed":
                centre.heal("both")
        assert {event["video"]["id"] for event in told} == {video["id"]}
        assert told[-1]["type"] == "completed"
        assert told[-1]["video"]["plan"] == "refine"  # from the draft that was shown
        assert "started" in [event["type"] for event in told]  # a worker's own event: heard at the centre
        final = (await client.get(f"/v1/videos/{video['id']}/content")).content

        async def kept() -> bool | None:
            return True if list((ports.spool / "known" / "content").glob("local/*")) else None

        await until("the final being kept", kept)
        centre.cut("both")
        await ready(client, "cut off")
        again = await post(client, steps=2)
        assert (again["status"], again["cached"], again["plan"]) == ("completed", True, "hit")
        assert (await client.get(f"/v1/videos/{again['id']}/content")).content == final
        other = await post(client, steps=3)
        assert (other["status"], other["plan"]) == ("queued", "refine")
        centre.heal("both")
        await when(client, other["id"], status="completed")
        assert (await when(client, again["id"], status="completed"))["cached"]
        assert (await stored(centre, again["id"]))["parts"] == ["draft", "manifest", "spec"]


async def test_a_broker_that_hangs_holds_up_a_request_for_a_bound_and_the_next_not_at_all(centre: Centre) -> None:
    ports = Ports(centre, reach_s=1.0)
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        before = await post(client, seed=9, plan="cloud")
        centre.nats.pause()
        try:
            begun_s = time.monotonic()
            first = await post(client, seed=1)
            assert time.monotonic() - begun_s < 5.0
            await ready(client, "cut off")
            begun_s = time.monotonic()
            second = await post(client, seed=2)
            assert time.monotonic() - begun_s < 0.9
            assert (await client.get(f"/v1/videos/{before['id']}")).json()["id"] == before["id"]  # from the store
        finally:
            centre.nats.resume()
        await empty(ports)
        assert sorted(await centre.messages()) == [before["id"], first["id"], second["id"]]


async def test_a_full_spool_refuses_with_a_time_to_come_back_and_keeps_what_it_has(centre: Centre) -> None:
    ports = Ports(centre, spool_max_jobs=1)
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        centre.cut("both")
        await ready(client, "cut off")
        video = await post(client, seed=1, key="k")
        refused = await client.post("/v1/videos", json={"prompt": "a star", "seed": 2})
        assert (refused.status_code, refused.json()["error"]["retryable"]) == (429, True)
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/readyz")).status_code == 503
        assert (await post(client, seed=1, key="k"))["id"] == video["id"]  # it has its place
        shown = (await client.get("/metrics")).text
        assert "adaptivegen_edge_spool_refused_total 1.0" in shown
        assert "adaptivegen_edge_spool_jobs 1.0" in shown
        assert "adaptivegen_edge_cut_off 1.0" in shown
        centre.heal("both")
        await empty(ports)
        assert await centre.messages() == [video["id"]]
        assert "adaptivegen_edge_drained_total 1.0" in (await client.get("/metrics")).text


async def test_what_cannot_be_known_while_cut_off_is_not_said_to_be_missing(centre: Centre) -> None:
    ports = Ports(centre)
    elsewhere = "vid_01hzzzzzzzzzzzzzzzzzzzzzz0"
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        before = await post(client, seed=1, key="k")
        await when(client, before["id"], draft=True)
        centre.cut("both")
        await ready(client, "cut off")
        asks = [("GET", ""), ("GET", "/events"), ("GET", "/content"), ("POST", "/cancel"), ("POST", "/upgrade")]
        for method, path in asks:
            answer = await client.request(method, f"/v1/videos/{elsewhere}{path}")
            assert (answer.status_code, answer.json()["error"]["retryable"]) == (503, True), path
            assert int(answer.headers["retry-after"]) > 0
        again = await client.post(
            "/v1/videos", json={"prompt": before["prompt"], "seed": 1}, headers={"idempotency-key": "k"}
        )
        assert (again.status_code, again.json()["error"]["code"]) == (503, "unavailable")  # and no second video
        other = await client.post("/v1/videos", json={"prompt": "a star"}, headers={"idempotency-key": "k"})
        assert other.status_code == 409
        centre.heal("both")
        await ready(client, "ready")
        assert (await client.get(f"/v1/videos/{elsewhere}")).status_code == 404
        assert (await post(client, seed=1, key="k"))["id"] == before["id"]
        assert await centre.messages() == [before["id"]]


async def test_a_key_that_was_used_elsewhere_during_the_cut_keeps_both_videos(centre: Centre) -> None:
    ports, others = Ports(centre), Ports(centre, "edge-2")
    async with (
        spooling_edge(ports) as node,
        spooling_edge(others) as second,
        client_of(node) as client,
        client_of(second) as other,
    ):
        await ready(client, "ready")
        centre.cut("both")
        await ready(client, "cut off")
        await ready(other, "cut off")
        ids = [(await post(asked, seed=1, key="k"))["id"] for asked in (client, other)]
        assert len(set(ids)) == 2
        centre.heal("both")
        await asyncio.gather(empty(ports), empty(others))
        assert sorted(await centre.messages()) == sorted(ids)
        reasons = {
            video_id: json.loads((centre.store / "jobs" / "local" / video_id / "spec").read_text())["decision"][
                "reasons"
            ]
            for video_id in ids
        }
        standing = [video_id for video_id in ids if not any("belongs to" in reason for reason in reasons[video_id])]
        assert len(standing) == 1
        for asked in (client, other):
            assert (await post(asked, seed=1, key="k"))["id"] == standing[0]


async def test_a_cancel_and_an_upgrade_while_spooled_hold_at_the_centre(centre: Centre) -> None:
    ports = Ports(centre)
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        centre.cut("both")
        await ready(client, "cut off")
        cancelled = await post(client, seed=1)
        assert (await client.post(f"/v1/videos/{cancelled['id']}/cancel")).json()["status"] == "cancelled"
        upgraded = await post(client, seed=2, plan="draft")
        await when(client, upgraded["id"], status="completed")
        answer = await client.post(f"/v1/videos/{upgraded['id']}/upgrade")
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert (await client.post(f"/v1/videos/{upgraded['id']}/rating", json={"stars": 4})).status_code == 204
        centre.heal("both")
        await empty(ports)
        assert (await client.get(f"/v1/videos/{cancelled['id']}")).json()["status"] == "cancelled"
        assert await centre.messages() == [upgraded["id"]]
        assert (await stored(centre, upgraded["id"]))["parts"] == ["draft", "spec", "upgrade"]
        assert (centre.store / "ratings" / "local" / upgraded["id"]).exists()


async def test_the_scheduler_decides_anew_on_the_final_and_only_on_it(centre: Centre) -> None:
    async with (
        scheduler(centre.nats.url, centre.folder) as placing,
        worker(centre.nats.url, centre.folder, scheduler_addresses=placing.grpc),
    ):
        ports = Ports(centre, scheduler_addresses=placing.grpc, place_budget_s=2.0)
        async with spooling_edge(ports) as node, client_of(node) as client:
            await ready(client, "ready")

            async def placed() -> bool | None:
                video = await post(client, plan="draft", seed=77)
                return True if decision_of(centre, video["id"])["decided_by"] == "scheduler-1" else None

            await until("a scheduler that knows the edge", placed)
            centre.cut("broker")
            await ready(client, "cut off")
            video = await post(client, steps=2)  # the scheduler answers still, and is not asked
            assert "cut off" in video["notes"][0]
            drafted = await when(client, video["id"], draft=True)
            centre.heal("broker")
            done = await when(client, video["id"], status="completed")
            assert done["draft"] == drafted["draft"]
            assert done["plan"] == "refine"
            decision = decision_of(centre, video["id"])
            assert (decision["decided_by"], decision["edge_id"]) == ("scheduler-1", "edge-1")
            assert "before, while cut off" in decision["reasons"][-1]


def decision_of(centre: Centre, video_id: str) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads((centre.store / "jobs" / "local" / video_id / "spec").read_text())
    decision: dict[str, Any] = spec["decision"]
    return decision


async def test_an_upload_is_kept_and_handed_over_with_its_job(centre: Centre) -> None:
    ports = Ports(centre)
    async with spooling_edge(ports) as node, client_of(node) as client:
        await ready(client, "ready")
        centre.cut("both")
        await ready(client, "cut off")
        image = io.BytesIO()
        Image.new("RGB", (64, 64), (200, 30, 30)).save(image, "PNG")
        answer = await client.post(
            "/v1/videos",
            data={"prompt": PROMPT, "seed": "1"},
            files={"input_reference": ("red.png", image.getvalue(), "image/png")},
        )
        assert answer.status_code == 202, answer.text
        video = answer.json()
        refused = await client.post(
            "/v1/videos", data={"prompt": PROMPT}, files={"input_reference": ("x.png", b"no image", "image/png")}
        )
        assert refused.status_code == 415
        await when(client, video["id"], draft=True)
        inputs = [path.name for path in (ports.spool / "jobs" / "inputs" / "local").glob("*")]
        assert len(inputs) == 1
        centre.heal("both")
        await empty(ports)
        assert [path.name for path in (centre.store / "inputs" / "local").glob("*")] == inputs
        left = [path for path in (ports.spool / "jobs").rglob("*") if path.is_file()]
        assert left == []
        assert await centre.messages() == [video["id"]]
