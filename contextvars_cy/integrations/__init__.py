"""Values that travel through other people's libraries: a module for each, which imports that library only when imported.

`pip install "contextvars-cy[dask]"` brings what `contextvars_cy.integrations.dask` needs, and so on.
"""
