"""Files that survive anything: HDF5 images built in RAM, published whole, checked when read.

``publish`` and ``writer`` put bytes on disk, ``image`` makes them, ``layout`` and ``records``
know where they lie, ``derive`` rebuilds what follows from the shards, ``reader`` and ``verify``
trust none of it. h5py lives here alone, and nothing here loads jax.
"""
