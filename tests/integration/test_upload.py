"""Uploads through the real sandboxed child."""

from __future__ import annotations

import io
import os
import resource
import sys

import numpy as np
import pytest
from PIL import Image

from adaptivegen.errors import NodeUnavailable, PayloadTooLarge, UnsupportedMedia
from adaptivegen.media.mp4 import decode_video, encode_mp4
from adaptivegen.media.upload import Target, UploadLimits, decode_upload

TARGET = Target(width=64, height=48, frames=6, fps=12)


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (40, 90, 200)).save(buffer, format="PNG")
    return buffer.getvalue()


async def test_an_image_becomes_a_still_clip() -> None:
    upload = await decode_upload(png(300, 200), TARGET, limits=UploadLimits())
    frames, _ = decode_video(upload.mp4)
    assert (upload.kind, frames.shape) == ("image", (6, 48, 64, 3))
    assert np.abs(frames.astype(int) - (40, 90, 200)).max() < 12


async def test_a_video_becomes_a_clip_of_the_target() -> None:
    source = encode_mp4(np.random.default_rng(1).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8), 10)
    upload = await decode_upload(source, TARGET, limits=UploadLimits())
    assert (upload.kind, decode_video(upload.mp4)[0].shape) == ("video", (6, 48, 64, 3))


async def test_too_many_bytes_are_refused_before_anything_starts() -> None:
    with pytest.raises(PayloadTooLarge, match="allowed: 100"):
        await decode_upload(png(300, 200), TARGET, limits=UploadLimits(max_bytes=100))


async def test_errors_of_the_child_come_back_typed() -> None:
    with pytest.raises(PayloadTooLarge, match="300x200"):
        await decode_upload(png(300, 200), TARGET, limits=UploadLimits(max_pixels=1000))
    with pytest.raises(UnsupportedMedia, match="cannot be decoded"):
        await decode_upload(png(300, 200)[:60], TARGET, limits=UploadLimits())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
async def test_memory_beyond_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        await decode_upload(png(6000, 6000), TARGET, limits=UploadLimits(max_pixels=10**9, memory_bytes=64 * 1024**2))


async def test_time_beyond_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=r"0\.001 s"):
        await decode_upload(png(300, 200), TARGET, limits=UploadLimits(wall_s=0.001))


async def test_a_machine_that_can_start_no_child_is_the_machines_fault_and_to_be_tried_again() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
    try:
        with pytest.raises(NodeUnavailable, match="cannot be started") as refused:
            await decode_upload(png(300, 200), TARGET, limits=UploadLimits())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused.value.retryable
    assert (await decode_upload(png(300, 200), TARGET, limits=UploadLimits())).kind == "image"
