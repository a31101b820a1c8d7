"""What tools/bench.py compares, and how it measures."""

import sys

try:
    import pyperf  # noqa: F401
except ImportError:
    sys.exit("pyperf is missing, run: pip install --group bench")
