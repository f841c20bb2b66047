"""Scoring rules of published benchmarks, applied to detections or answers made elsewhere; no detector is needed."""
