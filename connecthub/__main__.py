"""`python -m connecthub`, and the command `connecthub`."""

from __future__ import annotations

import signal


def main() -> None:
    """Load the command line and run it. Ctrl-C while it loads ends the process without a word."""
    # Left alone where it is ignored, as it is for a command in the background of a script.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from connecthub import cli

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
