"""Generates adaptivegen/rpc/pb from proto/; with --check, says whether what is there is current.

Decides where generated code lives and how its imports are spelt. A developer's tool: needs grpcio-tools and
mypy-protobuf, never imported by a service.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
OUT = ROOT / "adaptivegen" / "rpc" / "pb"
_IMPORT = re.compile(r"^(from|import) adaptivegen\.v1(\.| import )", re.MULTILINE)
_ALIAS = re.compile(r"\badaptivegen\.v1\.(\w+_pb2)\b")


def generate(out: Path) -> None:
    """Write the Python code of every .proto file into `out`, flat; raises RuntimeError when protoc refuses."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        command = ["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        for kind in ("mypy", "mypy_grpc"):
            plugin = Path(sys.executable).parent / f"protoc-gen-{kind}"
            command += [f"--plugin=protoc-gen-{kind}={plugin}", f"--{kind}_out=quiet:{folder}"]
        command += sources
        if protoc.main(command) != 0:
            raise RuntimeError("protoc failed; its message is above")
        out.mkdir(parents=True, exist_ok=True)
        (out / "__init__.py").write_text(
            '"""Generated from proto/; do not edit (see adaptivegen/rpc/generate.py)."""\n'
        )
        for path in sorted((Path(folder) / "adaptivegen" / "v1").iterdir()):
            text = _IMPORT.sub(
                lambda match: f"{match[1]} adaptivegen.rpc.pb{match[2]}", path.read_text(encoding="utf-8")
            )
            (out / path.name).write_text(_ALIAS.sub(r"adaptivegen.rpc.pb.\1", text), encoding="utf-8")


def stale(fresh: Path) -> list[str]:
    """Names of files in OUT that differ from `fresh`, are missing or are left over."""
    names = {path.name for path in fresh.iterdir()} | {path.name for path in OUT.iterdir() if path.is_file()}
    return sorted(
        name
        for name in names
        if not (fresh / name).exists()
        or not (OUT / name).exists()
        or (fresh / name).read_bytes() != (OUT / name).read_bytes()
    )


def main() -> int:
    """0 when generated or current, 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    if not parser.parse_args().check:
        generate(OUT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        different = stale(Path(folder))
    if different:
        sys.stderr.write(f"generated protobuf code is not current: {', '.join(different)}; run `make proto`\n")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
