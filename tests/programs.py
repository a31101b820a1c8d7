"""Random programs over context variables, run in lockstep on any implementation of PEP 567.

A program is a list of operations, each a tuple whose first item names it; those that hold a body hold a program.
`run` interprets one on an API (a module that has Context, ContextVar and copy_context) and returns its log, in which
addresses and the implementation's name are blotted out, so that two implementations' logs can be compared as they are.
"""

from __future__ import annotations

import asyncio
import copy
import re
import threading

from hypothesis import strategies as st

VARIABLES = 4

numbers = st.integers(0, 99)
variables = st.integers(0, VARIABLES - 1)
simple = st.one_of(
    st.tuples(st.just("set"), variables, numbers),
    st.tuples(st.just("get"), variables),
    st.tuples(st.just("reset"), variables, numbers),
    st.tuples(st.just("reset_own"), numbers),
    st.tuples(st.just("copy_current")),
    st.tuples(st.just("new")),
    st.tuples(st.just("copy"), numbers),
    st.tuples(st.just("look"), numbers),
    st.tuples(st.just("compare"), numbers, numbers),
)


def programs(*with_bodies):
    """Programs of the simple operations and of those named, which hold a context's number and a program."""
    compound = st.deferred(lambda: st.tuples(st.sampled_from(with_bodies), numbers, program))
    program = st.lists(simple | compound, max_size=8)
    return program


SYNCHRONOUS = ("run", "run_copy", "thread")
ASYNCHRONOUS = (*SYNCHRONOUS, "task", "background", "callback", "to_thread", "gather", "async_generator")


class Machine:
    """One flow of control; those that run beside each other fork, because threads decide which comes first."""

    def __init__(self, api):
        self.api = api
        self.variables = [
            api.ContextVar(f"v{n}", **({"default": "default"} if n % 2 else {})) for n in range(VARIABLES)
        ]
        self.contexts = [api.Context()]
        self.tokens = []
        self.background = []
        self.log = []

    def fork(self, tokens):
        child = copy.copy(self)
        child.contexts = [context.copy() for context in self.contexts]
        child.tokens = list(tokens)
        child.log = []
        self.log.append(child.log)
        return child

    def note(self, *words):
        text = re.sub(r"0x[0-9a-fA-F]+", "0x", " ".join(map(str, words)))
        self.log.append(re.sub(r"_contextvars\.|contextvars_cy\.", "", text))

    def attempt(self, name, function, *args):
        try:
            result = function(*args)
        except (LookupError, RuntimeError, ValueError) as error:
            self.note(name, type(error).__name__, error)
        else:
            self.note(name, result)
            return result

    def operation(self, name, *args):
        if name == "set":
            var, value = self.variables[args[0]], args[1]
            token = self.attempt(name, var.set, value)
            old_value = "unset" if token.old_value is self.api.Token.MISSING else token.old_value
            self.note("old", old_value, token.var is var)
            self.tokens.append(token)
        elif name == "get":
            self.attempt(name, self.variables[args[0]].get)
        elif name == "reset":
            if self.tokens:
                token = self.tokens[args[1] % len(self.tokens)]
                self.attempt(name, self.variables[args[0]].reset, token)
                self.note(token)
        elif name == "reset_own":
            if self.tokens:
                token = self.tokens[args[0] % len(self.tokens)]
                self.attempt(name, token.var.reset, token)
        elif name == "copy_current":
            self.contexts.append(self.api.copy_context())
        elif name == "new":
            self.contexts.append(self.api.Context())
        elif name == "copy":
            self.contexts.append(self.context(args[0]).copy())
        elif name == "look":
            context = self.context(args[0])
            values = [context.get(var, "unset") for var in self.variables]
            self.note(name, len(context), values, [var in context for var in self.variables])
            self.note(sorted(f"{var.name}={value}" for var, value in context.items()))
        elif name == "compare":
            self.note(name, self.context(args[0]) == self.context(args[1]))
        else:
            return False
        return True

    def context(self, number):
        return self.contexts[number % len(self.contexts)]

    def look_around(self):
        self.note([var.get("unset") for var in self.variables])

    def block(self, program):
        for name, *args in program:
            if not self.operation(name, *args):
                self.compound(name, *args)
            self.look_around()
        return len(program)

    def compound(self, name, number, body):
        if name == "run":
            self.attempt(name, self.context(number).run, self.block, body)
        elif name == "run_copy":
            self.attempt(name, self.api.copy_context().run, self.block, body)
        elif name == "thread":
            thread = threading.Thread(target=self.attempt, args=(name, self.block, body))
            thread.start()
            thread.join()
        else:
            # Code that cannot wait, such as a callback, runs the body in its place.
            self.note(name, "in place")
            self.block(body)

    async def async_block(self, program):
        for name, *args in program:
            if not self.operation(name, *args):
                await self.async_compound(name, *args)
            self.look_around()
        return len(program)

    async def async_compound(self, name, number, body):
        loop = asyncio.get_running_loop()
        if name == "task":
            self.note(name, await loop.create_task(self.fork(self.tokens).async_block(body)))
        elif name == "background":
            # Without the tokens: whether this flow has used one by then is left to chance.
            self.background.append(loop.create_task(self.fork([]).async_block(body)))
            await asyncio.sleep(0)
        elif name == "callback":
            loop.call_soon(self.attempt, name, self.block, body)
            await asyncio.sleep(0)
        elif name == "to_thread":
            self.note(name, await asyncio.to_thread(self.block, body))
        elif name == "gather":
            half = len(body) // 2
            await asyncio.gather(*(self.fork(self.tokens).async_block(part) for part in (body[:half], body[half:])))
        elif name == "async_generator":

            async def generate():
                for operation in body:
                    yield await self.async_block([operation])

            async for _ in generate():
                await asyncio.sleep(0)
        else:
            self.compound(name, number, body)

    async def main(self, program):
        await self.async_block(program)
        while self.background:
            await self.background.pop(0)


def run(api, program):
    machine = Machine(api)
    machine.attempt("program", api.Context().run, machine.block, program)
    return machine.log


def run_async(api, program):
    machine = Machine(api)
    # An empty Context, because others set native variables too.
    api.Context().run(asyncio.run, machine.main(program))
    return machine.log
