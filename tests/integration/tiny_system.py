"""A supervisor of tiny services in a process of its own: `tiny_system.py DIR KIND...`. Prints what it announces."""

import asyncio
import sys
from pathlib import Path

from adaptivegen.clock import SystemClock
from cli.signals import run_until_signal
from cli.system.data_dir import locked
from cli.system.layout import ProcessPlan
from cli.system.ports import free_ports
from cli.system.supervisor import supervised

SERVICE = Path(__file__).with_name("tiny_service.py")


def tiny_plans(folder: Path, *kinds: str) -> list[ProcessPlan]:
    """One process per kind, each in a stage of its own, named `<kind>-<number>`."""
    plans = []
    for number, (kind, port) in enumerate(zip(kinds, free_ports(len(kinds)), strict=True), start=1):
        name = f"{kind}-{number}"
        plans.append(
            ProcessPlan(
                name=name,
                argv=(sys.executable, str(SERVICE), kind, str(port), name, str(folder)),
                env={},
                probe="grpc" if kind == "grpc" else "http",
                address=f"127.0.0.1:{port}",
                stage=number,
                endpoint={"kind": "edge", "node_id": name, "http_url": f"http://127.0.0.1:{port}"},
            )
        )
    return plans


async def main(folder: Path, kinds: list[str]) -> None:
    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with locked(folder):
        async with supervised(folder, tiny_plans(folder, *kinds), clock=SystemClock(), announce=say):
            say("ready")
            await asyncio.Event().wait()


if __name__ == "__main__":
    run_until_signal(lambda: main(Path(sys.argv[1]), sys.argv[2:]))
