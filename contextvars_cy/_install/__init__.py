"""In the place of the standard library's `contextvars`, and what event loops take."""
