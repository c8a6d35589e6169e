"""What people do, in a real browser: `pytest tests/browser`, beside the fast tests."""
