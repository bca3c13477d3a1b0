"""VideoService over gRPC: job records to the wire and back, and the servicer that serves a `VideoBackend`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import grpc

from adaptivegen.errors import InvalidRequest
from adaptivegen.experience import Experience
from adaptivegen.jobs.events import JobEvent
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Media
from adaptivegen.rpc.pb import video_pb2 as pb
from adaptivegen.rpc.pb import video_pb2_grpc as stubs
from adaptivegen.rpc.server import RpcServer

SERVICE = "adaptivegen.v1.VideoService"
CHUNK_BYTES = 256 * 1024
Variant = Literal["video", "draft"]

_STATUS: dict[str, pb.VideoStatus.ValueType] = {
    "queued": pb.VIDEO_STATUS_QUEUED,
    "in_progress": pb.VIDEO_STATUS_IN_PROGRESS,
    "completed": pb.VIDEO_STATUS_COMPLETED,
    "failed": pb.VIDEO_STATUS_FAILED,
    "cancelled": pb.VIDEO_STATUS_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a tenant's videos, and whether more follow. partial: the edge is cut off, and knows only of those that it
    keeps itself."""

    records: list[JobRecord]
    has_more: bool
    partial: bool = False


class VideoBackend(Protocol):
    """What an edge offers its clients, whatever the wire. `tenant` is the authenticated caller's."""

    async def create(
        self, tenant: str, values: Mapping[str, object], *, upload: bytes | None, idempotency_key: str | None
    ) -> JobRecord:
        """Accept a request; returns once the job is durable."""
        ...

    async def get(self, tenant: str, video_id: str) -> JobRecord:
        """The state of a video."""
        ...

    async def list(self, tenant: str, *, after: str | None, limit: int, ascending: bool) -> Page:
        """Videos by id."""
        ...

    async def cancel(self, tenant: str, video_id: str) -> JobRecord:
        """End an unfinished video."""
        ...

    async def delete(self, tenant: str, video_id: str) -> None:
        """Delete a video; deleting again is no error."""
        ...

    async def upgrade(self, tenant: str, video_id: str) -> JobRecord:
        """Ask for the final of a draft."""
        ...

    def watch(self, tenant: str, video_id: str, *, after: str | None) -> AsyncIterator[JobEvent]:
        """Events until the terminal one."""
        ...

    async def media(self, tenant: str, video_id: str, variant: Variant) -> Media:
        """Where the bytes are."""
        ...

    def read(self, media: Media, *, start: int, end: int | None) -> AsyncIterator[bytes]:
        """The bytes [start, end)."""
        ...

    async def rate(self, tenant: str, video_id: str, said: Experience) -> None:
        """Store a rating."""
        ...


class Authenticator(Protocol):
    """Turns an `authorization` value into a tenant."""

    def tenant(self, authorization: str | None) -> str:
        """The caller's tenant; raises Unauthenticated."""
        ...


def media_to_pb(media: Media | None) -> pb.Media | None:
    """A media file for the wire."""
    if media is None:
        return None
    return pb.Media(
        sha256=media.sha256,
        size_bytes=media.size_bytes,
        width=media.width,
        height=media.height,
        frames=media.frames,
        fps=media.fps,
        content_type=media.content_type,
        familiarity=media.familiarity,
    )


def video_to_pb(record: JobRecord) -> pb.Video:
    """A record for the wire."""
    return pb.Video(
        id=record.id,
        status=_STATUS[record.status],
        progress_percent=record.progress_percent,
        prompt=record.prompt,
        model=record.model,
        size=record.size,
        seconds=record.seconds,
        seed=record.seed,
        plan=record.plan,
        edge_id=record.edge_id,
        worker_id=record.worker_id,
        draft=media_to_pb(record.draft),
        final=media_to_pb(record.final),
        error=pb.Failure(code=record.error.code, message=record.error.message) if record.error else None,
        created_at_ns=record.created_at_ns,
        completed_at_ns=record.completed_at_ns,
        eta_s=record.eta_s,
        notes=record.notes,
        draft_steps=record.draft_steps,
        final_steps=record.final_steps,
        cached=record.cached,
        model_version=record.model_version,
        draft_model_version=record.drafted_with,
    )


_WHERE = ("service_tier", "allow_reduced")


def values_from_pb(request: pb.CreateVideoRequest) -> dict[str, object]:
    """The request's fields as `parse_request` takes them; proto3 zeros mean absent."""
    values: dict[str, object] = {"prompt": request.prompt}
    for name in ("model", "size", "seconds", "fps", "steps", "plan", "task", "session", *_WHERE):
        if value := getattr(request, name):
            values[name] = value
    if request.HasField("guidance"):
        values["guidance"] = request.guidance
    if request.HasField("seed"):
        values["seed"] = request.seed
    if request.HasField("strength"):
        values["strength"] = request.strength
    if request.HasField("deadline_s"):
        values["deadline_s"] = request.deadline_s
    if request.intent == pb.INTENT_ITERATE:
        values["intent"] = "iterate"
    return values


class VideoServicer(stubs.VideoServiceServicer):
    """Serves VideoService by a backend and an authenticator."""

    def __init__(self, backend: VideoBackend, authenticator: Authenticator) -> None:
        self._backend = backend
        self._authenticator = authenticator

    def add_to(self, server: RpcServer) -> None:
        """Serve on `server`."""
        server.register(stubs.add_VideoServiceServicer_to_server, self, SERVICE)

    def _tenant(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        return self._authenticator.tenant(metadata.get("authorization"))

    async def CreateVideo(
        self, request: pb.CreateVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Video:
        record = await self._backend.create(
            self._tenant(context),
            values_from_pb(request),
            upload=request.reference or None,
            idempotency_key=request.idempotency_key or None,
        )
        return video_to_pb(record)

    async def GetVideo(self, request: pb.GetVideoRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.Video:
        return video_to_pb(await self._backend.get(self._tenant(context), request.id))

    async def ListVideos(
        self, request: pb.ListVideosRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListVideosResponse:
        page = await self._backend.list(
            self._tenant(context),
            after=request.after or None,
            limit=request.limit or 20,
            ascending=request.ascending,
        )
        videos = [video_to_pb(record) for record in page.records]
        return pb.ListVideosResponse(videos=videos, has_more=page.has_more, partial=page.partial)

    async def CancelVideo(
        self, request: pb.CancelVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Video:
        return video_to_pb(await self._backend.cancel(self._tenant(context), request.id))

    async def DeleteVideo(
        self, request: pb.DeleteVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.DeleteVideoResponse:
        await self._backend.delete(self._tenant(context), request.id)
        return pb.DeleteVideoResponse()

    async def UpgradeVideo(
        self, request: pb.UpgradeVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Video:
        return video_to_pb(await self._backend.upgrade(self._tenant(context), request.id))

    async def WatchVideo(
        self, request: pb.WatchVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.VideoEvent]:
        tenant = self._tenant(context)
        async for event in self._backend.watch(tenant, request.id, after=request.after_event_id or None):
            yield pb.VideoEvent(
                id=event.id,
                type=event.type,
                at_ns=event.at_ns,
                video=video_to_pb(event.record),
                step=event.step,
                steps=event.steps,
                look_jpeg=event.look_jpeg,
            )

    async def DownloadVideo(
        self, request: pb.DownloadVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.MediaChunk]:
        variant: Variant = "draft" if request.variant == pb.VARIANT_DRAFT else "video"
        media = await self._backend.media(self._tenant(context), request.id, variant)
        if request.offset_bytes > media.size_bytes:
            raise InvalidRequest.field("offset_bytes", request.offset_bytes, f"at most {media.size_bytes}")
        offset = request.offset_bytes
        async for part in self._backend.read(media, start=offset, end=None):
            for begin in range(0, len(part), CHUNK_BYTES):
                data = part[begin : begin + CHUNK_BYTES]
                yield pb.MediaChunk(offset_bytes=offset, data=data, total_bytes=media.size_bytes, sha256=media.sha256)
                offset += len(data)

    async def RateVideo(
        self, request: pb.RateVideoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RateVideoResponse:
        said = Experience(
            stars=request.stars,
            draft_wait_s=request.draft_wait_s if request.HasField("draft_wait_s") else None,
            final_wait_s=request.final_wait_s if request.HasField("final_wait_s") else None,
            stalls=request.stalls,
            stalled_s=request.stalled_s,
        )
        await self._backend.rate(self._tenant(context), request.id, said)
        return pb.RateVideoResponse()
