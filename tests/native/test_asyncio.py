"""On the native host our variables go wherever Python's own context goes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator

import pytest

from contextvars_cy import Context, ContextVar, copy_context, current_context, thread_state

VAR: ContextVar[object] = ContextVar("VAR", default="default")
NATIVE = contextvars.ContextVar("NATIVE", default="default")


def test_tasks_have_values_of_their_own() -> None:
    async def worker(number: int) -> object:
        seen = VAR.get()
        VAR.set(number)
        for _ in range(3):
            await asyncio.sleep(0)
            assert VAR.get() == number
        return seen

    async def main() -> list[object]:
        VAR.set("main")
        seen = await asyncio.gather(*(worker(number) for number in range(20)))
        assert VAR.get() == "main"
        return seen

    assert asyncio.run(main()) == ["main"] * 20
    assert VAR.get() == "default"


def test_callbacks_timers_and_futures_see_the_context_they_were_made_in() -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        seen: list[object] = []
        done, future = loop.create_future(), loop.create_future()
        VAR.set("soon")
        loop.call_soon(lambda: seen.append(VAR.get()))
        VAR.set("later")
        loop.call_later(0, lambda: seen.append(VAR.get()))
        VAR.set("done")
        future.add_done_callback(lambda _: (seen.append(VAR.get()), done.set_result(None)))  # type: ignore[func-returns-value]
        VAR.set("after")
        await asyncio.sleep(0.01)
        future.set_result(None)
        await done
        return seen

    assert asyncio.run(main()) == ["soon", "later", "done"]


def test_to_thread_carries_the_context() -> None:
    async def main() -> object:
        VAR.set("main")
        assert await asyncio.to_thread(VAR.get) == "main"
        await asyncio.to_thread(VAR.set, "thread")
        return VAR.get()

    assert asyncio.run(main()) == "main"


def test_loops_and_handles_take_our_contexts() -> None:
    context = Context()
    context.run(VAR.set, "given")

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        seen: list[object] = []
        loop.call_soon(lambda: seen.append(VAR.get()), context=context)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        if sys.version_info >= (3, 11):
            # From 3.15 on a task insists on the native type.
            given = context if sys.version_info < (3, 15) else context.native
            seen.append(await loop.create_task(read(), context=given))  # type: ignore[arg-type]
        return seen

    async def read() -> object:
        assert current_context() is context
        return VAR.get()

    assert set(asyncio.run(main())) == {"given"}


def test_a_context_is_one_with_the_native_one_it_wraps() -> None:
    context = Context()
    assert type(context.native) is contextvars.Context
    assert context.native is context.native
    assert context.native.run(current_context) is context
    token = context.native.run(VAR.set, 1)
    assert context[VAR] == 1
    context.run(VAR.reset, token)
    assert VAR not in context
    with pytest.raises(RuntimeError, match="is already entered"):
        context.native.run(context.run, int)


def test_native_variables_travel_along() -> None:
    context = copy_context()
    context.run(NATIVE.set, "inside")
    with context:
        assert NATIVE.get() == "inside"
        assert len(context) == len(copy_context())
    assert NATIVE.get() == "default"
    assert context.native[NATIVE] == "inside"


def test_a_native_copy_takes_our_values_along() -> None:
    with copy_context():
        VAR.set("ours")
        native = contextvars.copy_context()
        VAR.set("later")
        assert native.run(VAR.get) == "ours"


def test_a_token_is_refused_in_a_native_copy() -> None:
    with copy_context():
        token = VAR.set(1)
        with pytest.raises(ValueError, match="was created in a different Context"):
            contextvars.copy_context().run(VAR.reset, token)
        VAR.reset(token)


def test_get_makes_no_native_context_and_set_does() -> None:
    import _thread

    results: list[object] = []
    finished = _thread.allocate_lock()
    finished.acquire()

    def fresh_thread() -> None:
        # The empty Context is told by the anchor: only a set stores there.
        results.append(VAR.get())
        results.append(len(contextvars.copy_context()))
        VAR.set(1)
        results.append(len(contextvars.copy_context()))
        finished.release()

    _thread.start_new_thread(fresh_thread, ())
    finished.acquire()
    assert results == ["default", 0, 1]


def test_a_task_context_can_be_entered_around_its_steps() -> None:
    async def main() -> object:
        context = copy_context()
        with context:
            VAR.set("inside")
        assert VAR.get() == "default"
        thread_state().enter(context)
        try:
            assert VAR.get() == "inside"
        finally:
            thread_state().exit(context)
        return await asyncio.sleep(0, VAR.get())

    assert asyncio.run(main()) == "default"


@pytest.mark.parametrize("fails", [False, True])
def test_a_finished_task_frees_its_values_at_once(fails: bool) -> None:
    class Value:
        pass

    async def work() -> weakref.ref[object]:
        VAR.set(Value())
        await asyncio.sleep(0)
        reference = weakref.ref(VAR.get())
        context = current_context()
        assert context[VAR] is reference()
        if fails:
            raise ValueError(reference)
        return reference

    async def main() -> bool:
        task = asyncio.get_running_loop().create_task(work())
        try:
            reference = await task
        except ValueError as error:
            reference = error.args[0]
        del task
        await asyncio.sleep(0)
        if sys.implementation.name != "cpython":
            gc.collect()
        return reference() is None

    gc.disable()
    try:
        assert asyncio.run(main())
    finally:
        gc.enable()


def test_async_generators_finalised_by_the_loop() -> None:
    seen: list[object] = []

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append(VAR.get())

    async def main() -> None:
        VAR.set("main")
        async for _ in generate():
            break
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == ["main"]


def test_an_anchor_that_somebody_overwrote_is_an_error_and_no_crash() -> None:
    with copy_context():
        VAR.set(1)
        for var in contextvars.copy_context():
            var.set(0)
        with pytest.raises((TypeError, AttributeError)):
            VAR.get()
