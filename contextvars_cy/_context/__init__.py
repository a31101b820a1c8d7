"""Context variables after PEP 567, and the two hosts that they live on."""
