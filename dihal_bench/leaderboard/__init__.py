"""Records of many runs: grouped, ranked, and shown as tables and a static site."""
