"""A request's id reaches a pool of processes and a process, and a counter comes back."""

from contextvars_cy import ContextVar, apply, bind, travel
from contextvars_cy.executors import Process, ProcessPoolExecutor

request_id = ContextVar("request_id", default="-")
words = ContextVar("words", default=0)
travel.register(request_id, "request-id")
travel.register(words, "words", codec=int)


def count(text: str) -> str:
    words.set(words.get() + len(text.split()))
    return f"{request_id.get()}: {words.get()} words, counted"


def count_and_print(text: str) -> None:
    print(count(text), "in a process", flush=True)


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        futures = []
        for name, text in {"r1": "take the pan", "r2": "take butter"}.items():
            with request_id.set(name):
                futures.append(pool.submit(bind(count, returns=[words]), text))
        futures.append(pool.submit(bind(count, returns=[words]), "stir"))
        total = 0
        for future in futures:
            said, changes = future.result()
            print(said, "in the pool")
            with apply(changes):
                total += words.get()

    with request_id.set("r3"):
        process = Process(target=count_and_print, args=["bake it for long"])
        process.start()
    process.join()
    print(total, "words were counted in the pool")
