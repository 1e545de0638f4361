"""Which layer the score selects under every protocol."""
