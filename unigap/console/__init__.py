"""Command-line arguments, strict YAML, one-line errors, signals and quiet libraries."""
