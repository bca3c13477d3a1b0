"""The child that decodes one untrusted upload: `python -m adaptivegen.media.upload_child`. Nothing else imports it."""

from __future__ import annotations

import io
import resource
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from adaptivegen.child.serve import Channel
from adaptivegen.errors import AdaptiveGenError, PayloadTooLarge, UnsupportedMedia
from adaptivegen.media.mp4 import Frames, encode_mp4
from adaptivegen.media.upload import FIELD

MAX_FILE_BYTES = 64 * 1024 * 1024  # the encoder's temporary file
MAX_OPEN_FILES = 64
STATM = Path("/proc/self/statm")  # Linux: pages of address space in use come first
KEPT_SIDE = 512  # pixels; frames are shrunk to it as they come
DECODERS = "h264,hevc,mpeg4,mjpeg,prores,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,aac,mp3float,opus,vorbis"
_DEMUXERS = {"mp4": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}  # as the library names them


def bounds(limits: dict[str, Any], *, statm: Path = STATM) -> list[tuple[int, int]]:
    """Limits on CPU time, file size, child processes, open files and, where the system keeps one, address space."""
    listed = [
        (resource.RLIMIT_CPU, int(limits["cpu_s"])),
        (resource.RLIMIT_FSIZE, MAX_FILE_BYTES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ]
    if statm.exists():  # macOS has neither this nor a limit on address space that counts; time and size bound it there
        used_bytes = int(statm.read_text().split()[0]) * resource.getpagesize()
        listed.append((resource.RLIMIT_AS, used_bytes + int(limits["memory_bytes"])))
    return listed


def restrict(limits: dict[str, Any]) -> None:
    """Set these bounds on this process, for good."""
    for kind, limit in bounds(limits):
        resource.setrlimit(kind, (limit, limit))


def check_pixels(width: int, height: int, limits: dict[str, Any]) -> None:
    """Refuse by the header, before anything of that size is allocated."""
    if width * height > limits["max_pixels"]:
        raise PayloadTooLarge(f"{FIELD} is {width}x{height}; allowed: {limits['max_pixels']} pixels", param=FIELD)


def read_image(data: bytes, form: str, limits: dict[str, Any]) -> list[Image.Image]:
    """The one picture of an image file."""
    Image.MAX_IMAGE_PIXELS = None  # our own limit, with our own error
    try:
        with Image.open(io.BytesIO(data), formats=(form.upper(),)) as picture:
            check_pixels(picture.width, picture.height, limits)
            return [ImageOps.exif_transpose(picture).convert("RGB")]
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as exc:
        raise UnsupportedMedia(f"{FIELD} cannot be decoded as {form}: {exc}", param=FIELD) from exc


def read_video(data: bytes, form: str, limits: dict[str, Any]) -> list[Image.Image]:
    """All frames, up to the limit; each is shrunk to at most `KEPT_SIDE` pixels a side as it comes."""
    pictures: list[Image.Image] = []
    options = {"codec_whitelist": DECODERS, "protocol_whitelist": "none", "format_whitelist": _DEMUXERS[form]}
    if form == "mp4":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    try:
        with av.open(io.BytesIO(data), "r", format=form, options=options) as container:
            if not container.streams.video:
                raise UnsupportedMedia(f"{FIELD} holds no video stream", param=FIELD)
            stream = container.streams.video[0]
            if stream.codec_context.name not in DECODERS.split(","):
                raise UnsupportedMedia(f"{FIELD} is coded as {stream.codec_context.name}", param=FIELD)
            stream.thread_count = 1
            check_pixels(stream.width, stream.height, limits)
            for frame in container.decode(stream):
                check_pixels(frame.width, frame.height, limits)
                if len(pictures) >= limits["max_frames"]:
                    raise PayloadTooLarge(f"{FIELD} has over {limits['max_frames']} frames", param=FIELD)
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                picture.thumbnail((KEPT_SIDE, KEPT_SIDE))
                pictures.append(picture)
    except MemoryError:
        raise  # FFmpeg's is an FFmpegError as well, but it is `main` that answers for memory
    except (av.error.FFmpegError, ValueError, EOFError) as exc:
        raise UnsupportedMedia(f"{FIELD} cannot be decoded as {form}: {exc}", param=FIELD) from exc
    if not pictures:
        raise UnsupportedMedia(f"{FIELD} holds no frame", param=FIELD)
    return pictures


def fit(pictures: list[Image.Image], target: dict[str, int]) -> Frames:
    """Crop to fill the target's shape, pick its number of frames evenly: uint8 (T, H, W, 3)."""
    width, height, count = target["width"], target["height"], target["frames"]
    chosen = [pictures[round(index * (len(pictures) - 1) / max(count - 1, 1))] for index in range(count)]
    return np.stack([np.asarray(_fill(picture, width, height)) for picture in chosen])


def _fill(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / picture.width, height / picture.height)
    inner_width, inner_height = width / scale, height / scale
    left, top = (picture.width - inner_width) / 2, (picture.height - inner_height) / 2
    box = (left, top, left + inner_width, top + inner_height)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box=box)


def main() -> None:
    """Read one message, answer `done` with the MP4 or `error`."""
    channel = Channel()
    message = channel.read()
    if message is None:
        return
    header, parts = message
    limits = header["limits"]
    restrict(limits)
    read = read_image if header["kind"] == "image" else read_video
    try:
        frames = fit(read(parts["data"], header["form"], limits), header["target"])
        channel.write({"type": "done"}, {"mp4": encode_mp4(frames, header["target"]["fps"])})
    except AdaptiveGenError as exc:
        channel.write({"type": "error", "error": exc.body()})
    except MemoryError:
        error = PayloadTooLarge(f"{FIELD} needs over {limits['memory_bytes']} bytes to decode", param=FIELD)
        channel.write({"type": "error", "error": error.body()})


if __name__ == "__main__":
    main()
