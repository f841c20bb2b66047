"""Checkpoint folders: locate, check, load and save them, with LoRA adapters and model cards."""
