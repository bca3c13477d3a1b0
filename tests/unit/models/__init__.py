"""Tests of adaptivegen.models."""
