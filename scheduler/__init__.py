"""The scheduler: placement per request, the node table, reconciliation, the admin API."""
