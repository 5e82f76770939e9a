"""Runs in object stores: the client, the names of the objects, the local mirror, commits."""
