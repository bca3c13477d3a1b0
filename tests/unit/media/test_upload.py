"""Uploads are recognised by content; the decoding of the child, called directly."""

from __future__ import annotations

import io
import resource
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from adaptivegen.errors import PayloadTooLarge, UnsupportedMedia
from adaptivegen.media.mp4 import encode_mp4
from adaptivegen.media.upload import UploadLimits, sniff
from adaptivegen.media.upload_child import bounds, fit, read_image, read_video

LIMITS = asdict(UploadLimits(max_pixels=200 * 200, max_frames=8))
FRAMES = np.random.default_rng(7).integers(0, 256, (6, 64, 96, 3), dtype=np.uint8)


def image(form: str, size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, format=form, **options)
    return buffer.getvalue()


def webm() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (image("PNG"), ("image", "png")),
        (image("JPEG"), ("image", "jpeg")),
        (image("WEBP"), ("image", "webp")),
        (encode_mp4(FRAMES, 12), ("video", "mp4")),
        (webm(), ("video", "matroska")),
    ],
    ids=["png", "jpeg", "webp", "mp4", "webm"],
)
def test_allowed_kinds_are_recognised_and_decoded(data: bytes, expected: tuple[str, str]) -> None:
    assert sniff(data) == expected
    kind, form = expected
    pictures = (read_image if kind == "image" else read_video)(data, form, LIMITS)
    assert len(pictures) == (1 if kind == "image" else 6)
    assert fit(pictures, {"width": 32, "height": 32, "frames": 4, "fps": 12}).shape == (4, 32, 32, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"<?xml version='1.0'?><MPD/>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"%PDF-1.7",
        image("GIF"),
        image("BMP"),
        image("TIFF"),
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match="input_reference"):
        sniff(data)


def test_a_playlist_is_not_followed_behind_a_video_signature() -> None:
    data = b"\x00\x00\x00\x18ftypisom#EXTM3U\nfile:///etc/passwd\n"
    assert sniff(data) == ("video", "mp4")
    with pytest.raises(UnsupportedMedia):
        read_video(data, "mp4", LIMITS)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_truncated_image_is_unsupported(form: str) -> None:
    data = image(form.upper(), (150, 150))
    with pytest.raises(UnsupportedMedia):
        read_image(data[: len(data) // 2], form, LIMITS)


def test_one_kind_is_not_decoded_as_another() -> None:
    with pytest.raises(UnsupportedMedia):
        read_image(image("GIF"), "png", LIMITS)
    with pytest.raises(UnsupportedMedia):
        read_video(webm(), "mp4", LIMITS)


def test_a_pixel_bomb_is_refused_by_its_header() -> None:
    data = bytearray(image("PNG"))
    data[16:24] = (65_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(PayloadTooLarge, match="65000x65000"):
        read_image(bytes(data), "png", LIMITS)


def test_large_frames_and_many_frames_are_refused() -> None:
    with pytest.raises(PayloadTooLarge, match="256x256"):
        read_video(encode_mp4(np.zeros((2, 256, 256, 3), np.uint8), 12), "mp4", LIMITS)
    with pytest.raises(PayloadTooLarge, match="over 8 frames"):
        read_video(encode_mp4(np.zeros((9, 64, 64, 3), np.uint8), 12), "mp4", LIMITS)


def test_a_codec_off_the_list_is_refused() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as container:
        stream = container.add_stream("qtrle", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(UnsupportedMedia, match="qtrle"):
        read_video(buffer.getvalue(), "mp4", LIMITS)


def test_fit_crops_the_middle_and_keeps_the_order() -> None:
    pictures = [Image.new("RGB", (100, 50), (value, 0, 0)) for value in (10, 20, 30)]
    fitted = fit(pictures, {"width": 20, "height": 20, "frames": 5, "fps": 12})
    assert [int(frame[10, 10, 0]) for frame in fitted] == [10, 10, 20, 30, 30]


def test_the_address_space_is_bounded_beyond_what_the_child_starts_with(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("1000 200 30 4 0 500 0\n")
    bounded = dict(bounds({"cpu_s": 3, "memory_bytes": 10**9}, statm=statm))
    assert bounded[resource.RLIMIT_AS] == 1000 * resource.getpagesize() + 10**9
    assert bounded[resource.RLIMIT_CPU] == 3


def test_without_proc_the_other_bounds_stand(tmp_path: Path) -> None:
    bounded = dict(bounds({"cpu_s": 3, "memory_bytes": 10**9}, statm=tmp_path / "absent"))
    assert resource.RLIMIT_AS not in bounded
    assert bounded[resource.RLIMIT_CPU] == 3 and bounded[resource.RLIMIT_NPROC] == 0
