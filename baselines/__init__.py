"""Interfaces and controls, one file each, registered exactly as a user's own file would be."""
