"""The smallest service a supervisor can run: `tiny_service.py KIND PORT NAME DIR`.

Kinds: `http` and `grpc` answer that they are ready; `broken` ends at once with status 3; `deaf` is `http` that ignores
SIGTERM; `parent` is `http` with a child of its own; `flaky` is `http` that starts well, then fails twice, then starts
well again. Each writes its name to DIR/ended when SIGTERM ends it.
"""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


def serve_http(port: int) -> None:
    HTTPServer(("127.0.0.1", port), Ready).serve_forever()


def serve_grpc(port: int) -> None:
    import grpc
    from grpc_health.v1 import health, health_pb2_grpc

    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def main(kind: str, port: int, name: str, folder: Path) -> None:
    def end(*_: object) -> None:
        with (folder / "ended").open("a") as file:
            file.write(f"{name}\n")
        sys.stdout.flush()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if kind == "deaf" else end)
    sys.stdout.write(f"{name} starts\n")
    sys.stdout.flush()
    if kind == "flaky":
        starts = folder / f"{name}.starts"
        count = len(starts.read_text()) if starts.exists() else 0
        starts.write_text("x" * (count + 1))
        if count in (1, 2):
            raise SystemExit(3)
    if kind == "broken":
        raise SystemExit(3)
    if kind == "parent":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder / "grandchild").write_text(str(child.pid))
    (serve_grpc if kind == "grpc" else serve_http)(port)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
