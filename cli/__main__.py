"""`python -m cli`: the `adaptivegen` command."""

from cli.main import run

if __name__ == "__main__":
    run()
