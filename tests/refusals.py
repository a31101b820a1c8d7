"""An error that a test expects, text and all."""

import re

import pytest


def refuses(kind, text):
    return pytest.raises(kind, match="^" + re.escape(text) + "$")
