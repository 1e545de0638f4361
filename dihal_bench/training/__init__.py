"""Training under a budget: the trainer, its ledger, and checkpoints."""
