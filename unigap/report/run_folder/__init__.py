"""The folder of a run as it is read back, with what it says."""
