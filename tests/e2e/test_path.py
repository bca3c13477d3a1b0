"""The whole path over HTTP: prompt, draft, final, under one id, from real processes."""

import hashlib
import io
import json
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from PIL import Image

from adaptivegen.media.mp4 import decode_video
from tests.e2e.system import UpSystem, events, finish, submit

PROMPT = "a red circle moves left over a sunset sky"


@pytest.fixture(scope="module")
def finished(system: UpSystem) -> dict[str, object]:
    """A video that went all the way, for tests that only read."""
    with system.client(0) as client:
        video = submit(client, PROMPT, seed=11)
        done = finish(client, video["id"])
    assert done["status"] == "completed", done
    result: dict[str, object] = done
    return result


def test_a_draft_comes_first_and_is_upgraded_to_the_final_under_the_same_id(edge: httpx.Client) -> None:
    video = submit(edge, PROMPT, seed=1)
    assert (video["status"], video["plan"]) == ("queued", "refine")
    happened = list(events(edge, video["id"]))
    types = [kind for _, kind, _ in happened]
    assert types[0] == "snapshot"
    assert types[-1] == "completed"
    assert types.index("draft.look") < types.index("draft.completed") < types.index("completed")
    assert {data["video"]["id"] for _, _, data in happened} == {video["id"]}
    done = happened[-1][2]["video"]
    assert (done["draft"]["width"], done["final"]["width"]) == (128, 256)
    assert done["final_steps"] > 0
    for variant, side in (("draft", 128), ("video", 256)):
        content = edge.get(f"/v1/videos/{video['id']}/content", params={"variant": variant})
        assert content.status_code == 200
        described = done["draft" if variant == "draft" else "final"]
        assert hashlib.sha256(content.content).hexdigest() == described["sha256"]
        frames, fps = decode_video(content.content)
        assert frames.shape == (24, side, side, 3)
        assert fps == 12


def test_the_draft_predicts_the_final(edge: httpx.Client, finished: dict[str, object]) -> None:
    clips = [
        decode_video(edge.get(f"/v1/videos/{finished['id']}/content", params={"variant": variant}).content)[0]
        for variant in ("draft", "video")
    ]
    small = [np.stack([np.asarray(Image.fromarray(f).resize((16, 16))) for f in clip]) for clip in clips]
    difference = np.abs(small[0].astype(int) - small[1].astype(int)).mean()
    shuffled = np.abs(small[0].astype(int) - small[1][:, ::-1].astype(int)).mean()
    assert difference < 30
    assert difference < shuffled


def test_predictions_learn_from_what_was_made(system: UpSystem, finished: dict[str, object]) -> None:
    command = [sys.executable, "-m", "cli", "admin", "predictions", "--json", "--data", str(system.data)]

    def learned() -> bool:
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        found = json.loads(shown.stdout)
        nodes = {pace["node_id"] for pace in found["paces"] if pace["observations"] > 0 and pace["factor"] > 0}
        parts = {part["part"] for part in found["accuracies"] if part["outcomes"] > 0}
        return nodes >= {"edge-1", "worker-1"} and parts >= {"draft", "final refine"}

    system.wait(learned)


def test_the_same_request_again_is_answered_from_what_is_known(
    edge: httpx.Client, other_edge: httpx.Client, finished: dict[str, object]
) -> None:
    again = submit(other_edge, PROMPT, seed=11)
    assert again["id"] != finished["id"]
    assert (again["status"], again["plan"], again["cached"]) == ("completed", "hit", True)
    assert again["final"] == finished["final"]
    first, second = (
        client.get(f"/v1/videos/{video['id']}/content").content
        for client, video in ((edge, finished), (other_edge, again))
    )
    assert first == second


def test_every_edge_tells_the_same(edge: httpx.Client, other_edge: httpx.Client, finished: dict[str, object]) -> None:
    path = f"/v1/videos/{finished['id']}"
    assert edge.get(path).json() == other_edge.get(path).json() == finished


def test_events_can_be_followed_from_another_edge(edge: httpx.Client, other_edge: httpx.Client) -> None:
    video = submit(edge, PROMPT, seed=2)
    types = [kind for _, kind, _ in events(other_edge, video["id"])]
    assert types[0] == "snapshot"
    assert types[-1] == "completed"


def test_a_stream_resumes_after_the_event_seen_last(edge: httpx.Client) -> None:
    video = submit(edge, PROMPT, seed=3)
    seen = []
    for event in events(edge, video["id"]):
        seen.append(event)
        if event[1] == "draft.look":
            break
    resumed = list(events(edge, video["id"], after=seen[-1][0]))
    ids = [name for name, _, _ in seen + resumed]
    assert len(ids) == len(set(ids))
    assert "snapshot" not in [kind for _, kind, _ in resumed]
    assert resumed[-1][1] == "completed"


def test_content_is_served_in_ranges_with_strong_validators(edge: httpx.Client, finished: dict[str, object]) -> None:
    path = f"/v1/videos/{finished['id']}/content"
    whole = edge.get(path)
    etag = whole.headers["etag"]
    size = len(whole.content)
    part = edge.get(path, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{size}"
    assert edge.get(path, headers={"range": "bytes=-10"}).content == whole.content[-10:]
    assert edge.get(path, headers={"range": f"bytes={size}-"}).status_code == 416
    assert edge.get(path, headers={"range": "bytes=0-1,5-6"}).status_code == 416
    assert edge.get(path, headers={"if-none-match": etag}).status_code == 304
    stale = edge.get(path, headers={"range": "bytes=0-9", "if-range": '"old"'})
    assert (stale.status_code, len(stale.content)) == (200, size)
    assert whole.headers["cache-status"].startswith("cache-1;")


def test_a_final_is_in_the_cache_before_it_is_asked_for(edge: httpx.Client, system: UpSystem) -> None:
    video = submit(edge, PROMPT, seed=4)
    sha256 = finish(edge, video["id"])["final"]["sha256"]
    system.wait(lambda: (system.data / "cache" / sha256).exists() or bool(list((system.data / "cache").rglob(sha256))))
    assert "; hit" in edge.get(f"/v1/videos/{video['id']}/content").headers["cache-status"]


def test_a_cancelled_video_stops_and_has_no_final(edge: httpx.Client, system: UpSystem) -> None:
    video = submit(edge, PROMPT, seed=5, plan="cloud", steps=50)
    for _, kind, _ in events(edge, video["id"]):
        if kind in ("started", "progress"):
            break
    assert edge.post(f"/v1/videos/{video['id']}/cancel").json()["status"] == "cancelled"
    assert edge.post(f"/v1/videos/{video['id']}/cancel").status_code == 200
    assert edge.get(f"/v1/videos/{video['id']}/content").status_code == 409
    follow_up = submit(edge, PROMPT, seed=6, plan="cloud", steps=2)  # the worker must be free again
    assert finish(edge, follow_up["id"])["status"] == "completed"
    assert edge.get(f"/v1/videos/{video['id']}").json()["status"] == "cancelled"


def test_a_finished_video_cannot_be_cancelled(edge: httpx.Client, finished: dict[str, object]) -> None:
    answer = edge.post(f"/v1/videos/{finished['id']}/cancel")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "conflict"


def test_a_draft_alone_ends_there_until_its_final_is_asked_for(edge: httpx.Client, system: UpSystem) -> None:
    video = submit(edge, PROMPT, seed=7, plan="draft")
    done = finish(edge, video["id"])
    assert (done["status"], done["plan"], done["final"]) == ("completed", "draft", None)
    assert edge.get(f"/v1/videos/{video['id']}/content").status_code == 409
    upgraded = edge.post(f"/v1/videos/{video['id']}/upgrade")
    assert upgraded.status_code == 202
    system.wait(lambda: edge.get(f"/v1/videos/{video['id']}").json()["final"] is not None)
    final = edge.get(f"/v1/videos/{video['id']}").json()
    assert (final["status"], final["plan"], final["draft"]) == ("completed", "refine", done["draft"])


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_clip_can_start_from_an_upload(edge: httpx.Client, finished: dict[str, object], kind: str) -> None:
    if kind == "image":
        picture = Image.new("RGB", (300, 200), (20, 160, 40))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        data = buffer.getvalue()
    else:
        data = edge.get(f"/v1/videos/{finished['id']}/content").content
    answer = edge.post(
        "/v1/videos",
        data={"prompt": PROMPT, "seed": "8", "strength": "0.6"},
        files={"input_reference": ("start.bin", data)},
    )
    assert answer.status_code == 202, answer.text
    done = finish(edge, answer.json()["id"])
    assert done["status"] == "completed", done
    if kind == "image":
        frames, _ = decode_video(edge.get(f"/v1/videos/{done['id']}/content").content)
        red, green, blue = frames[0].reshape(-1, 3).mean(axis=0)
        assert green > red
        assert green > blue


def test_an_idempotency_key_gives_the_same_video_and_refuses_another_body(edge: httpx.Client) -> None:
    headers = {"idempotency-key": f"k-{time.time_ns()}"}
    body = {"prompt": PROMPT, "plan": "draft"}
    first = edge.post("/v1/videos", json=body, headers=headers)
    second = edge.post("/v1/videos", json=body, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    other = edge.post("/v1/videos", json={**body, "prompt": "another"}, headers=headers)
    assert other.status_code == 409
    assert other.json()["error"]["param"] == "idempotency_key"


def test_videos_are_listed_in_pages(edge: httpx.Client, finished: dict[str, object]) -> None:
    names: list[str] = []
    after = None
    while True:
        params = {"limit": "2", "order": "asc"} | ({"after": after} if after else {})
        page = edge.get("/v1/videos", params=params).json()
        names += [video["id"] for video in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert names == sorted(set(names))
    assert finished["id"] in names


def test_request_id_and_trace_context_go_all_the_way(edge: httpx.Client, system: UpSystem) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"x-request-id": "req-of-this-test", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    answer = edge.post("/v1/videos", json={"prompt": PROMPT, "plan": "cloud", "steps": 2}, headers=headers)
    assert answer.headers["x-request-id"] == "req-of-this-test"
    finish(edge, answer.json()["id"])
    spec = json.loads(system.stored(f"jobs/local/{answer.json()['id']}/spec")[0].read_text())
    assert trace_id in spec["trace"]["traceparent"]
    for node in ("edge-1", "scheduler-1", "worker-1"):
        assert "req-of-this-test" in system.logs(node), node


def test_a_rating_is_stored(edge: httpx.Client, system: UpSystem, finished: dict[str, object]) -> None:
    path = f"/v1/videos/{finished['id']}/rating"
    said = {"stars": 4, "draft_wait_s": 0.5, "stalls": 1, "stalled_s": 0.25}
    assert edge.post(path, json=said).status_code == 204
    stored = json.loads(system.stored(f"ratings/local/{finished['id']}")[-1].read_text())
    assert said.items() <= stored.items()
    made = {"plan": "refine", "draft_model": "pocket-draft", "cloud_model": "pocket-cloud", "final_size": "256x256"}
    assert made.items() <= stored.items()
    assert stored["draft_steps"] > 0 and stored["final_steps"] > 0
    for bad in ({"stars": 6}, {}, {"stars": "5"}, {"stars": 5, "stalls": -1}, {"stars": 5, "mood": 1}):
        assert edge.post(path, json=bad).status_code == 400
