"""What the terminal says and takes: arguments, strict YAML, mistakes in one line."""
