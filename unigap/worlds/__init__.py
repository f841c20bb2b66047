"""Worlds: prompts with known truth, an external judge and exam questions, one folder a world."""
