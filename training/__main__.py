"""`python -m training ...`: see `python -m training --help` and docs/models.md."""

import sys

from training.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
