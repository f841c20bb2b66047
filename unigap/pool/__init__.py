"""The pool: an append-only, checksummed folder of rounds."""

from unigap.pool.pool import Pool as Pool
