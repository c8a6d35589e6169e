"""Tests of ConnectHub."""
