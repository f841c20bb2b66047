"""What a verb of the command line does, one a file."""
