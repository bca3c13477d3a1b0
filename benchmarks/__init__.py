"""Benchmarks: each file is run as a module, prints what it measured and on what, and ends with one JSON line."""
