"""Crash-safe and checksummed files of a run: HDF5 images built in RAM, published whole.

``layout`` names the files, ``records`` and ``run_directory`` write the small ones, ``commit``
publishes shards, ``finalize`` rebuilds what follows from them, ``reader`` and ``verify`` check all
of it. h5py is imported here alone, and nothing here loads jax.
"""
