"""Generated from proto/; do not edit (see adaptivegen/rpc/generate.py)."""
