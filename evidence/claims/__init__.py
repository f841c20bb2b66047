"""What the paper claims, each with its controls: arms, what is measured of them, and the page."""
