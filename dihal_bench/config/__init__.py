"""What a run is configured by: dataclasses, presets, and the identity of what is configured."""
