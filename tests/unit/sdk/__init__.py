"""Tests of adaptivegen.sdk."""
