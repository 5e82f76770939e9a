"""One run by many processes that a driver leases shards to."""
