"""What the degree of sharing between the branches changes: the gap, their coupling, and co-improvement."""
