"""The scoring rules of published benchmarks, from detections or answers that were made elsewhere; needs no detector."""
