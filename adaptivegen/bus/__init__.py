"""The broker: the port, its adapter over NATS, and an in-process implementation with the same guarantees."""
