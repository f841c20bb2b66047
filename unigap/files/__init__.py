"""Files on disk: durable writes, sealed JSON, images."""
