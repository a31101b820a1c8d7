"""The map of the twin that runs."""

from typing import TYPE_CHECKING

from .._backend import backend

if TYPE_CHECKING or backend == "pure":
    from .hamt_py import Hamt, HamtItems, HamtKeys, HamtMutation, HamtValues
else:
    from .hamt_cy import Hamt, HamtItems, HamtKeys, HamtMutation, HamtValues

__all__ = ["Hamt", "HamtItems", "HamtKeys", "HamtMutation", "HamtValues"]
