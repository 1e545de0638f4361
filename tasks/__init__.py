"""Task definitions."""
