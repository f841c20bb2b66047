"""Measure speed and cost, mostly against other libraries; each module prints a table."""
