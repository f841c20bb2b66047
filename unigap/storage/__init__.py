"""Files that know when they are damaged: shards with checksums, sealed manifests, sidecars."""
