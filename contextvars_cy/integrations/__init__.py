"""Values that travel through other people's libraries: a module for each.

It imports its library, and nothing else here does. `pip install "contextvars-cy[dask]"` brings what
`contextvars_cy.integrations.dask` needs, and so on.
"""
