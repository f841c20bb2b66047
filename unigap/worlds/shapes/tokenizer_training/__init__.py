"""Training the image tokenizers of the embedded world."""
