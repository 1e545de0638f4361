"""What everything else stands on: errors, files and locks, registries, progress, processes."""
