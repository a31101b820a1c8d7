"""Its import does in a process that `multiprocessing` has started what `python -m contextvars_cy run` does at first."""

from .children import hold_in_children
from .install import install

install()
hold_in_children()
