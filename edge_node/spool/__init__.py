"""What an edge keeps while it is cut off from the broker or the object store, and how it hands that over."""
