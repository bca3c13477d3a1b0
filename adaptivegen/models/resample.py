"""Resizing clips in space and time with a triangle filter that widens when shrinking. Pure numpy."""

import numpy as np
from numpy.typing import NDArray


def weights(source: int, target: int) -> NDArray[np.float32]:
    """(target, source) rows that sum to one: the triangle filter around each target sample's centre."""
    scale = source / target
    support = max(1.0, scale)
    centre = (np.arange(target) + 0.5) * scale - 0.5  # (target,)
    distance = np.abs(np.arange(source)[None, :] - centre[:, None]) / support
    rows = np.maximum(0.0, 1.0 - distance)
    shares: NDArray[np.float32] = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def resize(clip: NDArray[np.float32], frames: int, height: int, width: int) -> NDArray[np.float32]:
    """(T, H, W, 3) -> (frames, height, width, 3)."""
    out = clip
    if out.shape[0] != frames:
        out = np.tensordot(weights(out.shape[0], frames), out, axes=(1, 0))  # (frames, H, W, 3)
    if out.shape[1] != height:
        out = np.einsum("yh,thwc->tywc", weights(out.shape[1], height), out, optimize=True)
    if out.shape[2] != width:
        out = np.einsum("xw,tywc->tyxc", weights(out.shape[2], width), out, optimize=True)
    return np.ascontiguousarray(out, dtype=np.float32)


def to_unit(clip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 0..255 -> float32 -1..1."""
    return clip.astype(np.float32) / 127.5 - 1.0


def to_bytes(clip: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 -1..1, clipped -> uint8 0..255."""
    whole: NDArray[np.uint8] = np.rint((np.clip(clip, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return whole
