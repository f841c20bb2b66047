"""Chat models behind an OpenAI-compatible HTTP server: address, requests, replies and their cache."""
