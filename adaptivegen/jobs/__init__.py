"""Durable jobs: the spec, the record and its transitions, where they are stored, claims and reconciliation."""
