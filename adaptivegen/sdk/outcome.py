"""What a video's last known state means for a caller who asked for a clip. Pure; shared by both clients."""

from __future__ import annotations

from collections.abc import Mapping

from adaptivegen.errors import InternalError, InvalidRequest, NotFound
from adaptivegen.ids import check_idempotency_key, check_video_id
from adaptivegen.sdk.models import Clip, Video
from adaptivegen.sdk.routes import Variant


def ended(video: Video | None) -> Video:
    """A video that ended well; raises its failure."""
    if video is None or not video.ended:
        raise InternalError("the stream of events ended before the video did")
    failure = video.failure()
    if failure is not None:
        raise failure
    return video


def drafted(video: Video | None) -> Video:
    """A video that has a draft; raises its failure, or NotFound when it ended without one."""
    if video is not None and video.draft is not None:
        return video
    video = ended(video)
    raise NotFound(f"video {video.id} has no draft (plan {video.plan or 'unknown'})")


def best_variant(video: Video) -> Variant:
    """The final, or the draft of a video that is only a draft."""
    return "video" if video.final is not None else "draft"


def clip_of(video: Video, variant: Variant) -> Clip:
    """The clip of a variant; raises NotFound."""
    clip = video.final if variant == "video" else video.draft
    if clip is None:
        raise NotFound(f"video {video.id} has no {'final' if variant == 'video' else 'draft'}")
    return clip


def handle_fields(data: Mapping[str, object]) -> tuple[str, str | None]:
    """Id and idempotency key of a handle written with `to_dict`; raises InvalidRequest."""
    video_id, key = data.get("id"), data.get("idempotency_key")
    if not isinstance(video_id, str):
        raise InvalidRequest.field("id", video_id, "a video id")
    if key is not None and not isinstance(key, str):
        raise InvalidRequest.field("idempotency_key", key, "a string or null")
    return check_video_id(video_id), check_idempotency_key(key) if key is not None else None
