"""``python -m jaxlens`` is the command ``jaxlens``."""

from jaxlens.cli.entry import main

if __name__ == "__main__":
    main()
