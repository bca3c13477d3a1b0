"""The engine: the child process that owns the model."""
