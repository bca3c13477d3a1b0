"""ONNX Runtime is told to send nothing home before it is loaded; what it cannot open is refused by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.runtime import open_session


def test_opening_a_model_leaves_no_telemetry_session_behind(tmp_path: Path) -> None:
    code = (
        "from adaptivegen.models.registry import open_generator, card_names;open_generator(card_names()[0], threads=1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_graph_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(GenerationFailed, match=r"broken\.onnx is no graph that can be run here"):
        open_session(path, threads=1)
