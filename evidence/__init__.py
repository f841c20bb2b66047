"""The measurements behind the documentation: ``python -m evidence TOPIC`` repeats them."""
