"""A clip half-way along the flow, which one model begins and another of the same space finishes. Pure.

What a cloud hands to an edge: 110 KB for Pocket's 8 frames of 48x48, as float16, with a header that says what it is.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import InvalidRequest

Floats = NDArray[np.float32]
_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 4096


@dataclass(frozen=True, slots=True)
class Latent:
    """z float32 of any shape, the point of the path at time t in (0, 1); `space` names what its models share."""

    z: Floats
    t: float
    space: str

    def check(self, space: str, shape: tuple[int, ...]) -> None:
        """Raise InvalidRequest unless it is of this space and shape, finite and under way."""
        if self.space != space:
            raise InvalidRequest.field("latent.space", self.space, space)
        if self.z.shape != shape:
            raise InvalidRequest.field("latent.shape", str(self.z.shape), str(shape))
        if not 0.0 < self.t < 1.0:
            raise InvalidRequest.field("latent.t", self.t, "above 0 and below 1")
        if not np.isfinite(self.z).all():
            raise InvalidRequest.field("latent", "not finite", "finite values only")

    def to_bytes(self) -> bytes:
        """Length of the header, header as JSON, values as little-endian float16."""
        header = json.dumps({"shape": self.z.shape, "t": self.t, "space": self.space}).encode()
        return _LENGTH.pack(len(header)) + header + self.z.astype("<f2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Latent":
        """What `to_bytes` gave; raises InvalidRequest for anything else."""
        try:
            (length,) = _LENGTH.unpack_from(data)
            if length > _LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
            shape, t, space = tuple(header["shape"]), float(header["t"]), str(header["space"])
            values = np.frombuffer(data, dtype="<f2", offset=_LENGTH.size + length)
            return cls(values.astype(np.float32).reshape(shape), t, space)
        except (ValueError, KeyError, TypeError, struct.error) as exc:
            raise InvalidRequest.field("latent", f"{len(data)} bytes", f"a whole latent ({exc})") from exc
