"""The conformance kit: what every interface must show on a tiny model before it is trusted."""
