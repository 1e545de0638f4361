"""Records of runs: what they hold, how they are written and read, and what is held against them."""
