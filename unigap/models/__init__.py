"""Unified multimodal models behind one protocol, one family a file."""
