"""The edge's model child: `python -m edge_node.draft.child MODEL THREADS`."""

from __future__ import annotations

import sys

from adaptivegen.child.serve import Channel
from adaptivegen.generation.child import serve
from adaptivegen.models.registry import open_generator


def main() -> None:
    """Serve the draft model on standard input and output."""
    model, threads = sys.argv[1:3]
    serve(Channel(), lambda: open_generator(model, threads=int(threads)))


if __name__ == "__main__":
    main()
