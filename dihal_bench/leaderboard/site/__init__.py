"""The static site: pages that need no server, no network, and trust no string."""
