"""The contract of an interface, and DiHAL's own: hidden states."""
