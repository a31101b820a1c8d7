"""A service whose code says `current_user` and `request`, and means those of the request that it works for.

`current_user` is a proxy: it is imported once, and stands for whoever the current request belongs to. `request` is a
Local: an object whose attributes every request has for itself. Both follow the tasks, and to_thread.

    python examples/current_proxy.py
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from contextvars_cy import ContextVar, Local


@dataclass
class User:
    name: str
    is_admin: bool = False


class Request(Local):
    path: str = "no request"


_user: ContextVar[User] = ContextVar("user", default=User("nobody"))
current_user = _user.proxy()
request = Request()


def audit(action: str) -> str:
    """Deep in the program, where nobody hands on a user."""
    return f"{request.path}: {current_user.name} {action}"


async def handle(path: str, user: User) -> list[str]:
    _user.set(user)
    request.path = path
    lines = [audit("came in")]
    await asyncio.sleep(0.01)  # The other requests run here.
    lines.append(await asyncio.to_thread(audit, "read a file"))
    lines.append(audit("may delete" if current_user.is_admin else "may look"))
    return lines


async def main() -> None:
    users = {"/home": User("ada"), "/admin": User("grace", is_admin=True), "/about": User("barbara")}
    for lines in await asyncio.gather(*(handle(path, user) for path, user in users.items())):
        print(*lines, sep="\n")
    print(audit("did nothing"))


if __name__ == "__main__":
    asyncio.run(main())
