"""The theory behind the score, in numbers."""
