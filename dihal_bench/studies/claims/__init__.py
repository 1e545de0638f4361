"""Published claims, beside what the committed results say of them."""
