"""Where the command ``jaxlens`` begins: signals are watched before anything large is imported."""

from __future__ import annotations

import sys

from jaxlens import interrupts


def main() -> None:
    """The command line; a signal while it is being imported ends it like one later."""
    try:
        with interrupts.watched():
            from jaxlens.cli import main as cli

            cli.main()
    except KeyboardInterrupt as error:
        interrupts.ignore_late()
        from jaxlens.cli import terminal

        sys.exit(terminal.show_interruption(error, sys.argv[1:]))
    finally:
        interrupts.ignore_late()
