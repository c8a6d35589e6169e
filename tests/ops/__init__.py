"""Operation: the image, the unit, retention at size. Slow, so with a command of its own; see README.md."""
