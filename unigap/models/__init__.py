"""Unified multimodal models behind one protocol; one folder per model family."""
