"""Parts that several model families share: decoding, masks, packed questions, sharding."""
