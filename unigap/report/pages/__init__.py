"""HTML pages made of run folders."""
