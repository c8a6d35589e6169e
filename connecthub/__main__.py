"""`python -m connecthub`."""

from connecthub.cli import main

main()
