"""Running a model in a killable child process: the messages, the child's loop, the parent's runner."""
