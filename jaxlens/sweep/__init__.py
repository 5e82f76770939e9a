"""The sweep: a configuration is resolved, its shards computed and published, resumed, repaired."""
