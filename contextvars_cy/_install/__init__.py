"""Replaces the standard library's `contextvars`, and adapts event loops."""
