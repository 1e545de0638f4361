"""A trained bridge for others to use: its model card, and its way to the hub."""
