"""A process under `adaptivegen.process.run`: `python -m tests.integration.draining_process <how> <grace_s>`."""

import asyncio
import sys
import threading

from adaptivegen.errors import BrokerUnavailable, SettingsInvalid
from adaptivegen.process import run


async def _body(how: str, stop: asyncio.Event) -> None:
    if how == "refused":
        raise SettingsInvalid("port is 0")
    if how == "buried":
        raise BaseExceptionGroup("outer", [ValueError(), BaseExceptionGroup("inner", [BrokerUnavailable("away")])])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await stop.wait()
    if how == "never":
        await asyncio.Event().wait()
    if how == "hung":
        threading.Event().wait()  # blocks the loop itself


if __name__ == "__main__":
    sys.exit(run(lambda stop: _body(sys.argv[1], stop), grace_s=float(sys.argv[2])))
