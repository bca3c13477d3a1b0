"""Videos are deleted over HTTP, gRPC and by the command, and purged by an operator; what others need stays."""

import json
import subprocess
import sys

import grpc
import httpx
import pytest

from adaptivegen import Client
from adaptivegen.errors import NotFound
from adaptivegen.rpc.pb import video_pb2 as pb
from adaptivegen.rpc.pb import video_pb2_grpc as stubs
from tests.e2e.system import UpSystem, finish, submit

PROMPT = "a small green circle moves up over a city"


def command(system: UpSystem, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "cli", *arguments, "--data", str(system.data)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def clips(system: UpSystem, video_id: str) -> list[str]:
    return [path.name for path in system.stored(f"out/local/{video_id}/*/*.mp4")]


def test_what_a_repeat_refers_to_survives_until_the_repeat_is_deleted_too(
    system: UpSystem, edge: httpx.Client, other_edge: httpx.Client
) -> None:
    first = finish(edge, submit(edge, PROMPT, seed=901)["id"])
    assert (first["status"], len(clips(system, first["id"]))) == ("completed", 2)
    repeat = submit(other_edge, PROMPT, seed=901)
    assert repeat["cached"]
    answer = other_edge.delete(f"/v1/videos/{first['id']}")
    assert answer.json() == {"id": first["id"], "object": "video.deleted", "deleted": True}
    assert edge.delete(f"/v1/videos/{first['id']}").status_code == 200
    for client in (edge, other_edge):
        for path in ("", "/content", "/events"):
            assert client.get(f"/v1/videos/{first['id']}{path}").status_code == 404, path
        listed = client.get("/v1/videos", params={"limit": 100}).json()["data"]
        assert first["id"] not in [video["id"] for video in listed]
        assert client.get(f"/v1/videos/{repeat['id']}/content").status_code == 200
    assert submit(edge, PROMPT, seed=901)["cached"]  # still found by its content
    for video in edge.get("/v1/videos", params={"limit": 100}).json()["data"]:
        if video["prompt"] == PROMPT and video["seed"] == 901:
            assert edge.delete(f"/v1/videos/{video['id']}").status_code == 200
    assert clips(system, first["id"]) == []
    anew = submit(edge, PROMPT, seed=901)
    assert not anew["cached"]
    assert finish(edge, anew["id"])["status"] == "completed"


def test_a_video_in_the_making_is_stopped_and_deleted(system: UpSystem, edge: httpx.Client) -> None:
    video = submit(edge, PROMPT, seed=902)
    with Client(str(edge.base_url)) as client:
        handle = client.handle(video["id"])
        handle.delete()
        handle.delete()
        with pytest.raises(NotFound):
            handle.status()
    system.wait(lambda: not clips(system, video["id"]) and not system.stored(f"pending/*{video['id']}"))
    assert finish(edge, submit(edge, PROMPT, seed=903)["id"])["status"] == "completed"  # the worker is free


def test_grpc_and_the_command_delete_too(system: UpSystem, edge: httpx.Client) -> None:
    ids = [submit(edge, PROMPT, seed=seed, intent="iterate")["id"] for seed in (904, 905)]
    stub = stubs.VideoServiceStub(grpc.insecure_channel(system.endpoints("edge")[0]["grpc_address"]))
    stub.DeleteVideo(pb.DeleteVideoRequest(id=ids[0]), timeout=10)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetVideo(pb.GetVideoRequest(id=ids[0]), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    done = command(system, "delete", ids[1])
    assert (done.returncode, done.stdout) == (0, f"{ids[1]} deleted\n")
    unknown = "vid_" + "0" * 26
    missing = command(system, "delete", ids[1], unknown, "--json")
    assert missing.returncode == 7
    said = json.loads(missing.stdout)
    assert (said["deleted"], said["error"]["code"]) == ([ids[1]], "not_found")


def test_an_operator_purges_by_the_command(system: UpSystem, edge: httpx.Client) -> None:
    video = finish(edge, submit(edge, PROMPT, seed=906)["id"])
    assert command(system, "admin", "purge").returncode == 2
    cached = command(system, "admin", "purge", video["id"], "--json")
    assert json.loads(cached.stdout)["videos"] == 1
    assert edge.get(f"/v1/videos/{video['id']}/content").status_code == 200
    key = json.loads(system.stored(f"jobs/local/{video['id']}/spec")[0].read_text())["content_key"]
    selection = ("admin", "purge", "--kind", "content", "--tenant", "local", "--content-key", key, "--json")
    dry = json.loads(command(system, *selection, "--dry-run").stdout)
    assert (dry["videos"], dry["bytes"]) == (1, video["draft"]["size_bytes"] + video["final"]["size_bytes"])
    done = json.loads(command(system, *selection, "--yes").stdout)
    assert (done["videos"], done["bytes"], done["failed"]) == (1, dry["bytes"], 0)
    assert edge.get(f"/v1/videos/{video['id']}").status_code == 404
    entries = json.loads(command(system, "admin", "audit", "--json").stdout)["audit"]
    assert [entry["action"] for entry in entries[:2]] == ["purge-videos", "purge-caches"]
