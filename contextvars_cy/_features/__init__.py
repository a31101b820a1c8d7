"""What the standard library lacks: one module a capability, on the public names."""
