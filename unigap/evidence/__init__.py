"""Evidence for what the documentation claims: each page is measured and written by one command."""
