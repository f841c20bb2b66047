"""Parts that several model families share: decoding, attention masks, packed questions, sharding."""
