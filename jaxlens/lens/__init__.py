"""The lens: residuals to readouts. ``reference`` defines it, ``tiled`` is the production path."""
