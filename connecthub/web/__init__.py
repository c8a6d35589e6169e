"""The admin and the HTTP routes."""
