"""What only CPython has, or only later Pythons, is not collected on the others."""

import sys

collect_ignore = []
if sys.version_info < (3, 14):
    collect_ignore.append("test_python_3_14.py")
if sys.implementation.name != "cpython":
    collect_ignore += ["test_c_api.py", "test_native_map.py"]
