"""``python -m jaxlens`` is the command ``jaxlens``."""

from jaxlens.entry import main

if __name__ == "__main__":
    main()
