"""What people read: tables, figures, model cards; one writer per format."""
