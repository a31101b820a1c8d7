"""A project of somebody else's that works on our types at C speed."""

from __future__ import annotations

from setuptools import Extension, setup  # type: ignore[import-untyped]

setup(name="tenants", ext_modules=[Extension("tenants", ["tenants.pyx"])])
