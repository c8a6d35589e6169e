"""HTTP clients of outside systems, for plugins."""
