"""Images from elsewhere with captions or preferences: folders, tables and data sets on disk."""
