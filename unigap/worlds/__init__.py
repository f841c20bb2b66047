"""Worlds: prompts with known truth, an external judge and a probe set, one folder per world."""
