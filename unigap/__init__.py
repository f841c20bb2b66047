"""unigap: measure the gap between what a unified multimodal model draws and what it understands, and close it."""

__version__ = "0.1.0"
