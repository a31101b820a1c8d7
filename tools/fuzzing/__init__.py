"""Random programs run in lockstep on our twins and on the interpreter's own `contextvars`: see `tools/fuzz.py`."""
