"""Read and write the run folder, and make pages, plots, tables and cards from it."""
