"""The kinds of programs: what each runs on, and the machine that runs it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

HOSTS = ("native", "thread")
NATIVE_ONLY = ("native",)


@dataclass(frozen=True)
class Kind:
    module: str
    machine: str
    hosts: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def load(self) -> Any:
        """The machine; ImportError if this Python lacks its library."""
        for library in self.needs:
            importlib.import_module(library)
        return getattr(importlib.import_module(f"fuzzing.{self.module}"), self.machine)


# Event loops and greenlets switch native Contexts, so the thread host does not follow them.
KINDS = {
    "plain": Kind("threads", "PlainMachine", HOSTS),
    "threads": Kind("threads", "ThreadsMachine", HOSTS),
    "asyncio": Kind("asyncio_machine", "AsyncioMachine", NATIVE_ONLY),
    "uvloop": Kind("asyncio_machine", "UvloopMachine", NATIVE_ONLY, ("uvloop",)),
    "trio": Kind("trio_machine", "TrioMachine", NATIVE_ONLY, ("trio",)),
    "anyio-asyncio": Kind("anyio_machine", "AnyioMachine", NATIVE_ONLY, ("anyio",)),
    "anyio-trio": Kind("anyio_machine", "AnyioTrioMachine", NATIVE_ONLY, ("anyio", "trio")),
    "greenlet": Kind("greenlet_machine", "GreenletMachine", NATIVE_ONLY, ("greenlet",)),
    "gevent": Kind("gevent_machine", "GeventMachine", NATIVE_ONLY, ("gevent",)),
}
