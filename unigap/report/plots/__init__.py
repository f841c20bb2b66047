"""Matplotlib plots: charts for pages as inline SVG, and figures for callbacks and notebooks."""
