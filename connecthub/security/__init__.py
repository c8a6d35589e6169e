"""Vault, passwords and redaction."""
