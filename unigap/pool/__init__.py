"""The pool: an append-only folder of rounds with checksums."""

from unigap.pool.pool import Pool as Pool
