"""Encoding and decoding clips, JPEG looks, contact sheets."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from adaptivegen.errors import InvalidRequest, UnsupportedMedia
from adaptivegen.media.contact_sheet import contact_sheet
from adaptivegen.media.mp4 import Frames, decode_video, encode_jpeg, encode_mp4


def clip(frames: int = 12, height: int = 64, width: int = 96) -> Frames:
    """A bright square that moves over a gradient."""
    images = np.zeros((frames, height, width, 3), np.uint8)
    images[..., 1] = np.linspace(0, 200, width, dtype=np.uint8)
    for index in range(frames):
        images[index, 16:40, 4 * index : 4 * index + 24] = (250, 40, 40)
    return images


def test_a_clip_survives_encoding() -> None:
    frames = clip()
    decoded, fps = decode_video(encode_mp4(frames, 12))
    assert decoded.shape == frames.shape
    assert fps == pytest.approx(12)
    error = decoded.astype(float) - frames
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 28  # dB; chroma is halved in 4:2:0


def test_the_same_frames_give_the_same_bytes() -> None:
    assert len({encode_mp4(clip(), 12) for _ in range(100)}) == 1  # wherever they lie in memory


def test_the_index_comes_before_the_pictures() -> None:
    data = encode_mp4(clip(), 12)
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_one_frame_is_a_clip() -> None:
    assert decode_video(encode_mp4(clip(frames=1), 12))[0].shape[0] == 1


def test_decoding_stops_at_the_limit() -> None:
    assert len(decode_video(encode_mp4(clip(), 12), max_frames=5)[0]) == 5


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 63, 64, 3), np.uint8),
        np.zeros((2, 64, 63, 3), np.uint8),
        np.zeros((0, 64, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 4), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 3), np.float32),
    ],
    ids=lambda frames: f"{frames.dtype}{frames.shape}",
)
def test_shapes_that_cannot_be_encoded_are_refused(frames: Frames) -> None:
    with pytest.raises(InvalidRequest):
        encode_mp4(frames, 12)


@pytest.mark.parametrize("data", [b"", b"not a video", encode_mp4(clip(), 12)[:300]])
def test_what_is_no_video_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        decode_video(data)


def test_a_frame_becomes_a_jpeg() -> None:
    picture = Image.open(io.BytesIO(encode_jpeg(clip()[0])))
    assert (picture.format, picture.size) == ("JPEG", (96, 64))


def test_the_contact_sheet_shows_draft_above_final_at_the_same_instants() -> None:
    draft = np.stack([np.full((32, 32, 3), (value, 0, 0), np.uint8) for value in (50, 150, 250)])
    final = np.stack([np.full((64, 64, 3), (0, value, 0), np.uint8) for value in (50, 100, 150, 200, 250)])
    png = contact_sheet(draft, final, duration_s=2.0, title="a red circle", columns=3)
    sheet = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    cells = [sheet[row, column] for row in (100, 260) for column in (80, 244, 408)]
    assert [tuple(cell) for cell in cells] == [
        (50, 0, 0),
        (150, 0, 0),
        (250, 0, 0),
        (0, 50, 0),
        (0, 150, 0),
        (0, 250, 0),
    ]
