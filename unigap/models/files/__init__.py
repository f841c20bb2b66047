"""Checkpoint folders: loading, saving, LoRA adapters, model cards."""
