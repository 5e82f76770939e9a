"""Readers of files: each kind in one module, registered in ``formats``."""
