"""A worker's jobs, one of which signs a user in and fails: the next one is nobody again, and still the tenant's.

python examples/one_job_after_another.py
"""

from __future__ import annotations

import asyncio

from contextvars_cy import ContextVar, fresh

TENANT: ContextVar[str] = ContextVar("tenant", default="-")
USER: ContextVar[str] = ContextVar("user", default="nobody")

Jobs = asyncio.Queue[tuple[str, str]]


def log(message: str) -> None:
    print(f"{TENANT.get()}, {USER.get()}: {message}")


async def sign_in(name: str) -> None:
    await asyncio.sleep(0)  # the other worker's turn
    USER.set(name)
    log("signed in")


async def do(job: str, name: str) -> None:
    if name:
        await sign_in(name)
    if job == "report":
        raise LookupError("there is no paper")
    log(f"did {job}")


async def work(tenant: str, jobs: Jobs) -> None:
    TENANT.set(tenant)
    while not jobs.empty():
        try:
            with fresh(keep=[TENANT]):  # take this line away, and ada cleans up
                await do(*await jobs.get())
        except LookupError as error:
            log(f"failed: {error}")


async def main() -> None:
    workers = []
    for tenant, name in (("acme", "ada"), ("globex", "grace")):
        jobs = Jobs()
        for job in (("report", name), ("cleaning", "")):
            jobs.put_nowait(job)
        workers.append(work(tenant, jobs))
    await asyncio.gather(*workers)


if __name__ == "__main__":
    asyncio.run(main())
