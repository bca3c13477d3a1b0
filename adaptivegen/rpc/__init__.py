"""gRPC: the generated code, conversions to our own types, servers and channels with the project's rules."""
