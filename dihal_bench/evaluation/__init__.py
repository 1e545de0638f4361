"""Scores of trained interfaces: gate, likelihood, intervals, table."""
