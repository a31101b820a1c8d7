"""Random programs say the same on our variables as on the standard library's."""

import contextvars

from hypothesis import given, settings

import contextvars_cy
import programs


@settings(max_examples=300)
@given(programs.programs(*programs.SYNCHRONOUS))
def test_programs_of_runs_and_threads(program):
    assert programs.run(contextvars_cy, program) == programs.run(contextvars, program)


def test_the_log_tells_implementations_apart():
    program = [("set", 0, 1), ("get", 0), ("run_copy", 0, [("get", 0)])]
    log = programs.run(contextvars, program)
    assert log[0].startswith("set <Token var=<ContextVar name='v0' at 0x> at 0x>")
    assert "get 1" in log and log.count("get 1") == 2
    assert log != programs.run(contextvars, program[1:])
