"""The worker's model child: `python -m core_cloud.engine.child MODEL BACKEND THREADS FOLDER`.

The only process with a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

from adaptivegen.child.serve import Channel
from adaptivegen.generation.child import serve
from core_cloud.models.registry import BACKENDS, Backend, open_generator


def choose_backend(asked: str) -> Backend:
    """The backend asked for; `auto` is torch where a CUDA device can be used, else ONNX Runtime."""
    if asked in BACKENDS:
        return "torch" if asked == "torch" else "onnx"
    try:
        import torch
    except ImportError:
        return "onnx"
    return "torch" if torch.cuda.is_available() else "onnx"


def main() -> None:
    """Serve one model on standard input and output."""
    model, backend, threads, folder = sys.argv[1:5]
    serve(
        Channel(),
        lambda: open_generator(model, backend=choose_backend(backend), threads=int(threads), weights=Path(folder)),
    )


if __name__ == "__main__":
    main()
