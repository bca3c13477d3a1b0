"""A model child that needs some seconds until it can serve: `python -m tests.integration.slow_to_load SECONDS ...`."""

import sys
import threading

from benchmarks.live.sleeper import main

if __name__ == "__main__":
    threading.Event().wait(float(sys.argv.pop(1)))
    main()
