"""The self-improvement loop: sample, judge, store, select."""
