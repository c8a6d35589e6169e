"""Tests of the engine: a real hub on a real database."""
