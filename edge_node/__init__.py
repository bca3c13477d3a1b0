"""The edge node: client API, draft model, durable submission, delivery."""
