"""The training stages, one LightningModule a file."""
