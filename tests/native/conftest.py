"""What only later Pythons have is not collected on the others."""

import sys

collect_ignore = [] if sys.version_info >= (3, 14) else ["test_python_3_14.py"]
