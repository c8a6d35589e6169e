"""The engine: from a due Job to a stored, explained result."""
