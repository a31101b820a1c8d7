"""A plugin of pytest for OpenTelemetry's own tests: on our variables they test our runtime context."""

from __future__ import annotations

import contextvars

if contextvars.ContextVar.__module__ == "contextvars_cy":
    from opentelemetry import context
    from opentelemetry.context import contextvars_context

    from contextvars_cy.integrations.opentelemetry import RuntimeContext

    # Before the tests import it.
    for module in (context, contextvars_context):
        module.ContextVarsRuntimeContext = RuntimeContext  # type: ignore[attr-defined]
    context._RUNTIME_CONTEXT = RuntimeContext()
