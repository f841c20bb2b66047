"""The embedded world: a small language of coloured shapes with known truth, and the pretraining of models on it."""
