"""Pictures of numbers, and pictures: SVG charts, matplotlib figures, PNG files."""
