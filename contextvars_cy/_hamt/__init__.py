"""The persistent map, which knows no Context."""
