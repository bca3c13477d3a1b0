"""Clips to MP4 and back, frames to JPEG. Blocking: belongs in child processes and offline tools, not on a loop.

Frames are uint8 (T, H, W, 3), sRGB. Encoding is deterministic (one thread, fixed settings, no path that
depends on the CPU): the same frames, the same bytes, the same digest.
"""

from __future__ import annotations

import io
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptivegen.errors import InternalError, InvalidRequest, UnsupportedMedia

Frames = NDArray[np.uint8]
# Without `cpu-independent` x264's assembly gives other bytes for the same frames now and then, by where they lie in
# memory (a third of 900 encodings of one small clip); with it an encoding takes a tenth longer.
_X264 = {"crf": "18", "preset": "veryfast", "threads": "1", "bf": "0", "x264-params": "cpu-independent=1"}


def encode_mp4(frames: Frames, fps: int) -> bytes:
    """H.264 in MP4, index first, so that a player can begin at once. `fps` is frames per second.

    Raises InvalidRequest unless there is a frame and the sides are even, InternalError when the encoder fails.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise InvalidRequest.field("frames", f"{frames.dtype} {frames.shape}", "uint8 (T, H, W, 3) with T >= 1")
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise InvalidRequest.field("size", f"{width}x{height}", "even sides (4:2:0 chroma)")
    try:
        with tempfile.TemporaryDirectory(prefix="adaptivegen-") as folder:
            path = Path(folder) / "clip.mp4"  # `faststart` reads the file back, so it needs a real path
            _write_mp4(path, frames, fps)
            return path.read_bytes()
    except (av.error.FFmpegError, OSError) as exc:
        raise InternalError(f"{width}x{height} at {fps} fps cannot be encoded: {exc}") from exc


def _write_mp4(path: Path, frames: Frames, fps: int) -> None:
    _, height, width, _ = frames.shape
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_video(data: bytes, *, demuxer: str = "mp4", max_frames: int = 10_000) -> tuple[Frames, float]:
    """Frames uint8 (T, H, W, 3) and the average frame rate. Raises UnsupportedMedia for what cannot be decoded."""
    try:
        with av.open(io.BytesIO(data), "r", format=demuxer) as container:
            if not container.streams.video:
                raise UnsupportedMedia("the file holds no video stream", param="input_reference")
            stream = container.streams.video[0]
            images = []
            for frame in container.decode(stream):
                images.append(frame.to_ndarray(format="rgb24"))
                if len(images) >= max_frames:
                    break
            rate = float(stream.average_rate or 0)
    except (av.error.FFmpegError, ValueError, EOFError) as exc:
        raise UnsupportedMedia(f"the video cannot be decoded: {exc}", param="input_reference") from exc
    if not images:
        raise UnsupportedMedia("the video holds no frame", param="input_reference")
    return np.stack(images), rate


def encode_jpeg(frame: NDArray[np.uint8], *, quality: int = 85) -> bytes:
    """One frame, uint8 (H, W, 3), as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
