"""A child for the tests: does what its messages say. `python -m tests.integration.echo_child`."""

from __future__ import annotations

import os
import sys
import threading

from adaptivegen.child.serve import Channel


def main() -> None:
    """Echo, print, count steps until cancelled, die in several ways."""
    channel = Channel()
    while (message := channel.read()) is not None:
        header, parts = message
        match header["type"]:
            case "echo":
                channel.write({"type": "echo", "pid": os.getpid(), "text": header.get("text")}, parts)
            case "print":
                print("a stray print")  # noqa: T201 - the stray print is the point
                sys.stdout.flush()
                os.write(1, b"and a stray write\n")
                channel.write({"type": "printed", "input": os.read(0, 10).decode()})
            case "work":
                channel.write({"type": "working"})
                steps = 0
                while not channel.cancelled(header["request_id"]):
                    threading.Event().wait(0.001)
                    steps += 1
                channel.write({"type": "stopped", "request_id": header["request_id"]})
            case "linger":
                channel.write({"type": "lingering"})
                threading.Event().wait(600)
            case "last words":
                for number in range(5):
                    channel.write({"type": "word", "number": number}, {"data": bytes(200_000)})
                os._exit(9)
            case "flood":
                while True:
                    channel.write({"type": "flood"}, {"data": bytes(1_000_000)})
            case "half":
                os.write(channel._output.fileno(), b"\x00\x00\x00\x20half a hea")
                os._exit(7)
            case "garbage":
                channel._output.write(b"\xff\xff\xff\xff garbage")


if __name__ == "__main__":
    main()
