"""HDF5: untrusted files opened safely, images built in memory, two files compared."""
