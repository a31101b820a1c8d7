"""Random asyncio programs say the same on our variables as on the standard library's."""

import contextvars

from hypothesis import given, settings

import contextvars_cy
import programs


@settings(max_examples=200)
@given(programs.programs(*programs.ASYNCHRONOUS))
def test_programs_of_tasks_callbacks_and_threads(program):
    assert programs.run_async(contextvars_cy, program) == programs.run_async(contextvars, program)
