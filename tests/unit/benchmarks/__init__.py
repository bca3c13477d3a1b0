"""Unit tests of the benchmarks: their parts that need no running system."""
