"""The embedded world: a small language of coloured shapes whose truth is known, and a model trained on it."""
