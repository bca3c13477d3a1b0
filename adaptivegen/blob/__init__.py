"""The object store: the port, its adapter over obstore, the self-test every service runs at start."""
