"""One run: its folder, its steps and their order, what it costs, and who carries it out."""
