"""One run per layer (or per anything), and what predicts which of them comes out best."""
