"""Measurements of speed and cost, most of them against peers; each module prints a table."""
