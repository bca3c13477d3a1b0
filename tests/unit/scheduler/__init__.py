"""Tests of the scheduler's pure decisions and of its behaviour without sockets."""
