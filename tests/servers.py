"""Real servers for tests: a nats-server of our own on a free port."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from cli.system.broker import configuration, find_binary
from cli.system.ports import free_ports

PASSWORD = "test-only"


class NatsServer:
    """One nats-server with JetStream in a folder; can be killed and started again on the same port and data."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "nats.conf"
        self.port = free_ports(1)[0]
        self._config.write_text(configuration(port=self.port, store_dir=folder, password=PASSWORD), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://adaptivegen:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self) -> None:
        binary = find_binary(None, "")
        self._process = subprocess.Popen(
            [str(binary), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError("nats-server did not start")

    def pause(self) -> None:
        """It hangs, with its connections open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)  # until then it still answers

    def resume(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    server = NatsServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
