"""Questions that are asked with runs. Nothing below imports them."""
