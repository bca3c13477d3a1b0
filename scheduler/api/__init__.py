"""The admin service over HTTP and JSON: operations, their description, live snapshots and the dashboard."""
