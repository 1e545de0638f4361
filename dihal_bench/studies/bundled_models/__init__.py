"""How the bundled models and the zoo of small backbones are trained."""
