"""Definitions of Jobs as people write them, in the form or in a file: read, checked, compared."""
