"""Programs that lose a value, or keep one too long, with the lines that are to blame, and recordings of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextvars_cy import backend
from helpers import run_python

MIDDLEWARE_IN_ANOTHER_TASK = """
import asyncio
from contextvars import ContextVar

user = ContextVar("user", default="-")


async def middleware():
    user.set("ada")  # blame


async def handle():
    await asyncio.create_task(middleware())  # blame
    print(user.get())


asyncio.run(handle())
"""
BACKGROUND_TASK = """
import asyncio
from contextvars import ContextVar

user = ContextVar("user", default="-")
tasks = set()


async def refresh():
    await asyncio.sleep(0)
    print(user.get())


async def handle():
    user.set("ada")  # blame
    tasks.add(asyncio.create_task(refresh()))  # blame


async def serve():
    await asyncio.create_task(handle())
    await asyncio.gather(*tasks)


asyncio.run(serve())
"""
CALLBACK_TOO_EARLY = """
import asyncio
from contextvars import ContextVar

user = ContextVar("user", default="-")


async def handle():
    asyncio.get_running_loop().call_later(0.01, lambda: print(user.get()))  # blame
    user.set("ada")  # blame
    await asyncio.sleep(0.02)


asyncio.run(handle())
"""
GENERATOR_CLOSED_ELSEWHERE = """
import asyncio
from contextvars import ContextVar

user = ContextVar("user", default="-")


async def rows():
    token = user.set("ada")  # blame
    try:
        yield 1
    finally:
        try:
            user.reset(token)
        except ValueError:
            print("another Context")


async def handle():
    generator = rows()
    await generator.__anext__()
    await asyncio.create_task(generator.aclose())
    print(user.get())


asyncio.run(handle())
"""
POOL = """
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

user = ContextVar("user", default="-")


def work():
    return user.get()


with ThreadPoolExecutor(1) as pool:
    user.set("ada")  # blame
    print(pool.submit(work).result())  # blame
"""
RESET_ELSEWHERE = """
from contextvars import ContextVar, copy_context

user = ContextVar("user", default="-")
token = user.set("ada")  # blame
try:
    copy_context().run(user.reset, token)
except ValueError:
    print("another Context")
"""
KEEP_ALIVE = """
import asyncio
from contextvars import ContextVar

user = ContextVar("user", default="-")


async def handle(path):
    print(path, user.get())
    if path == "/login":
        user.set("ada")  # blame
        # As a server does that reads the next request of a connection in the task of the last one.
        asyncio.get_running_loop().call_soon(serve, "/next")  # blame


def serve(path):
    tasks.append(asyncio.get_running_loop().create_task(handle(path)))


async def main():
    serve("/login")
    await tasks[0]
    await asyncio.sleep(0)
    await tasks[1]


tasks = []
asyncio.run(main())
"""
FIXTURE = """
from contextvars import ContextVar, copy_context

user = ContextVar("user", default="-")


def signed_in():
    user.set("ada")  # blame


def test():
    print(user.get())


# As a plugin for asynchronous tests does with a fixture.
copy_context().run(signed_in)  # blame
test()
"""

LOST = {name.lower(): text for name, text in list(globals().items()) if name.isupper() and isinstance(text, str)}


def blamed_lines(program: str) -> list[int]:
    return [number for number, line in enumerate(program.splitlines(), 1) if line.endswith("# blame")]


def trace(program: str, folder: Path, *options: str) -> None:
    """Run it as `app.py`, and write down what happens as a user would."""
    (folder / "app.py").write_text(program, encoding="utf-8")
    done = run_python(
        ["-m", "contextvars_cy", "trace", *options, "app.py"], folder, {"CONTEXTVARS_CY_BACKEND": backend}
    )
    assert done.returncode == 0, done.stderr


def recorded(program: str, folder: Path, *options: str) -> dict[str, Any]:
    trace(program, folder, "--format", "json", *options)
    found: dict[str, Any] = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    return found
