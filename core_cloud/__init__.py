"""The cloud worker: pulls jobs, generates the final in a child process that may own a GPU, commits it."""
