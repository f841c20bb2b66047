"""Files on disk: durable writes, checksums, checked reads, images."""
