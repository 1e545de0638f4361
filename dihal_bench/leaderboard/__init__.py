"""Results of many runs side by side, and a trained bridge for others to use."""
