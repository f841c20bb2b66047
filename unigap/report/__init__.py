"""The run folder, read and written, and the pages made from it."""
