"""Why the compiled extension is missing, and how to fix that; only the command and errors import this."""

from __future__ import annotations

import json
import os
import shlex
import sys
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder

_FOLDER = os.path.dirname(os.path.abspath(__file__))
# Written by setup.py into a pure build: which Python made it, and why it is pure.
_RECORD = os.path.join(_FOLDER, "_pure_build.txt")


def explanation() -> tuple[str, str]:
    """Why this Python finds no extension, and the remedy; an empty text if there is none."""
    shadowed = _shadowed_package()
    if shadowed:
        above = os.path.dirname(_FOLDER)
        return (
            f"no extension is built in {_FOLDER}, which Python finds before the installed package, {shadowed}",
            f"run Python in another folder than {above}, without that on PYTHONPATH",
        )
    engine = os.path.join(_FOLDER, "_context")
    are_sources = os.path.exists(os.path.join(engine, "context_cy.pyx"))
    names = [name for name in os.listdir(engine) if name.startswith("context_cy.") and name.endswith((".so", ".pyd"))]
    others = sorted(name for name in names if name[len("context_cy") :] not in EXTENSION_SUFFIXES)
    if os.path.exists(_RECORD):
        with open(_RECORD, encoding="utf-8") as record:
            reason = f"a pure build, made by {record.read().strip()}"
    elif others:
        reason = f"the extension that is installed is for another Python: {', '.join(others)}"
    elif are_sources:
        reason = f"the sources in {_FOLDER} are not built for this Python"
    else:
        reason = "no compiled extension is installed for this Python"
    if sys.implementation.name != "cpython":
        return reason, ""
    if __package__ != "contextvars_cy":
        return reason, f"copy the files of a contextvars_cy that was compiled for this Python to {_FOLDER}"
    # A cached wheel may be pure. And if cython is demanded, a build that cannot compile fails with the reason.
    pip = f"{shlex.quote(sys.executable)} -m pip install --no-cache-dir --force-reinstall"
    source = f"-e {shlex.quote(os.path.dirname(_FOLDER))}" if are_sources else _source()
    return reason, f"where a C compiler works: CONTEXTVARS_CY_BACKEND=cython {pip} {source}"


def _shadowed_package() -> str:
    """The folder of the package that this one hides on `sys.path`."""
    if __package__ != "contextvars_cy":
        return ""
    above = os.path.realpath(os.path.dirname(_FOLDER))
    spec = PathFinder.find_spec(__package__, [entry for entry in sys.path if os.path.realpath(entry) != above])
    return os.path.dirname(spec.origin) if spec and spec.origin else ""


def _source() -> str:
    """What pip was told to install, if it has kept that."""
    try:
        text = metadata.distribution("contextvars_cy").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    origin = json.loads(text or "{}")
    url = origin.get("url", ".whl")
    if "vcs_info" in origin:
        return shlex.quote(f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}")
    # For a wheel it does not record the source.
    return "--no-binary contextvars_cy contextvars_cy" if url.endswith(".whl") else shlex.quote(url)
