"""One HTML file that shows a recording: it opens by a double click, and asks nobody for anything.

Names, values and source come from the program, and may hold whatever a request brought. They stand in a block of data
that the browser does not run, and the page's script puts them up as text. A policy lets that script and style alone
have effect, known by their digests, and opens no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

DIRECTIVES = "default-src 'none'; script-src {script}; style-src {style}; base-uri 'none'; form-action 'none'"


def html_of(data: dict[str, Any]) -> str:
    """The page of what `json.loads(recording.to_json())` gives."""
    template = resources.files(__name__.rpartition(".")[0]).joinpath("page.html").read_text(encoding="utf-8")
    policy = DIRECTIVES.format(script=_digest("script", template), style=_digest("style", template))
    # No tag and no comment begins without a "<"; and all but ASCII is escaped, so that a lone surrogate can be written.
    block = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    # The data last: what looks like a place in it is not one.
    return template.replace("{{policy}}", policy).replace("{{data}}", block)


def _digest(tag: str, template: str) -> str:
    """What the policy knows the one such element by."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
