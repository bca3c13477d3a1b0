"""The `adaptivegen` command: composition only."""
