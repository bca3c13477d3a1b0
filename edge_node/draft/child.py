"""The edge's model child: `python -m edge_node.draft.child MODEL THREADS FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from adaptivegen.child.serve import Channel
from adaptivegen.generation.child import serve
from adaptivegen.models.registry import open_generator


def main() -> None:
    """Serve the draft model on standard input and output."""
    model, threads, folder = sys.argv[1:4]
    serve(Channel(), lambda: open_generator(model, threads=int(threads), weights=Path(folder)))


if __name__ == "__main__":
    main()
