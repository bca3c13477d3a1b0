"""ONNX Runtime as this project uses it: imported here and nowhere else, told first to send nothing home.

ONNX Runtime reads the switch when it is imported, so it has to be set before; it is no setting of ours, hence not in
any settings class. Spinning is off: several processes share the cores of an edge node.
"""

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

from adaptivegen.errors import GenerationFailed

__all__ = ["open_session", "ort"]


def open_session(path: Path, *, threads: int) -> ort.InferenceSession:
    """Open one graph on `threads` CPU threads; raises GenerationFailed for a file that holds none that can be run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no type in common
        raise GenerationFailed(f"{path.name} is no graph that can be run here: {str(exc)[:300]}") from exc
