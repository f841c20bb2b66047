"""The files of a run folder: write, read and check them, and phrase the results."""
