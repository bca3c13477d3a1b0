"""The same path over gRPC, and what every server of the system offers: health, reflection, deadlines."""

import hashlib
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from adaptivegen.rpc.pb import video_pb2 as pb
from adaptivegen.rpc.pb import video_pb2_grpc as stubs
from tests.e2e.system import UpSystem


@pytest.fixture
def stub(system: UpSystem) -> stubs.VideoServiceStub:
    return stubs.VideoServiceStub(grpc.insecure_channel(system.endpoints("edge")[0]["grpc_address"]))


def test_create_watch_and_download(stub: stubs.VideoServiceStub, edge: httpx.Client) -> None:
    request = pb.CreateVideoRequest(prompt="a green triangle moves up over a sea", seed=5)
    video = stub.CreateVideo(request, timeout=10)
    assert video.plan in ("refine", "hit")
    last = list(stub.WatchVideo(pb.WatchVideoRequest(id=video.id), timeout=90))[-1]
    assert last.type == "completed"
    assert last.video.status == pb.VIDEO_STATUS_COMPLETED
    data = b"".join(c.data for c in stub.DownloadVideo(pb.DownloadVideoRequest(id=video.id), timeout=10))
    assert hashlib.sha256(data).hexdigest() == last.video.final.sha256
    rest = stub.DownloadVideo(pb.DownloadVideoRequest(id=video.id, offset_bytes=1000), timeout=10)
    assert b"".join(chunk.data for chunk in rest) == data[1000:]
    assert edge.get(f"/v1/videos/{video.id}").json()["status"] == "completed"


def test_a_call_without_a_deadline_is_refused(stub: stubs.VideoServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetVideo(pb.GetVideoRequest(id="vid_" + "0" * 26))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "deadline" in str(caught.value.details())


@pytest.mark.parametrize(
    ("request_", "code", "param"),
    [
        (pb.CreateVideoRequest(prompt=""), grpc.StatusCode.INVALID_ARGUMENT, "prompt"),
        (pb.CreateVideoRequest(prompt="x", steps=1000), grpc.StatusCode.INVALID_ARGUMENT, "steps"),
        (pb.CreateVideoRequest(prompt="x", guidance=float("nan")), grpc.StatusCode.INVALID_ARGUMENT, "guidance"),
        (pb.CreateVideoRequest(prompt="x", model="none"), grpc.StatusCode.NOT_FOUND, "model"),
        (pb.CreateVideoRequest(prompt="x", reference=b"zip"), grpc.StatusCode.INVALID_ARGUMENT, "input_reference"),
    ],
)
def test_bad_fields_have_the_status_and_name_of_the_table(
    stub: stubs.VideoServiceStub, request_: pb.CreateVideoRequest, code: grpc.StatusCode, param: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateVideo(request_, timeout=10)
    assert caught.value.code() is code
    trailing: Any = caught.value.trailing_metadata()
    assert dict(trailing)["ag-error-param"] == param


def test_an_oversized_message_is_refused_and_the_edge_goes_on(stub: stubs.VideoServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateVideo(pb.CreateVideoRequest(prompt="x", reference=b"0" * (5 * 1024 * 1024)), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not stub.ListVideos(pb.ListVideosRequest(limit=1), timeout=10).videos[1:]


def test_every_grpc_server_says_it_is_healthy_and_describes_itself(system: UpSystem) -> None:
    addresses = {
        "edge": system.endpoints("edge")[0]["grpc_address"],
        "scheduler": system.endpoints("scheduler")[0]["grpc_address"],
        "worker": system.endpoints("worker")[0]["grpc_address"],
    }
    expected = {
        "edge": {"adaptivegen.v1.VideoService", "adaptivegen.v1.DraftService"},
        "scheduler": {"adaptivegen.v1.PlacementService", "adaptivegen.v1.AdminService"},
        "worker": set[str](),
    }
    for kind, address in addresses.items():
        with grpc.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
            database = ProtoReflectionDescriptorDatabase(channel)
            assert expected[kind] <= set(database.get_services())
            for name in expected[kind]:
                assert DescriptorPool(database).FindServiceByName(name).methods
