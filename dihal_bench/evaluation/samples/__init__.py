"""Scores of samples: what a text looks like to a judge, to counts, and beside real text."""
