"""ONNX Runtime is told to send nothing home before it is loaded."""

import subprocess
import sys
from pathlib import Path


def test_opening_a_model_leaves_no_telemetry_session_behind(tmp_path: Path) -> None:
    code = (
        "from adaptivegen.models.registry import open_generator, card_names;open_generator(card_names()[0], threads=1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert list(tmp_path.iterdir()) == []
