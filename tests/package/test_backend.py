"""The selector: the environment decides which twin runs on which host, and a missing or broken extension is told."""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from helpers import run_python

REPORT = r"""
import json, re, sys
import contextvars_cy
from contextvars_cy import Context, ContextVar, Hamt, Token

try:
    native = Context().native is not None
except AttributeError:
    native = False
print(json.dumps({
    "backend": contextvars_cy.backend,
    "host": contextvars_cy.host,
    "host at work": "native" if native else "thread",
    "folder": contextvars_cy.__path__[0],
    "twins": sorted(re.findall(r"^contextvars_cy\.(_\w+\.[a-z]+_[cp]y)$", "\n".join(sys.modules), re.MULTILINE)),
    "homes": sorted(
        name.partition(".")[2]
        for name, module in sys.modules.items()
        if re.fullmatch(r"contextvars_cy\._\w+\.[a-z]+_[cp]y", name)
        and any(vars(module).get(kind.__name__) is kind for kind in (Context, ContextVar, Hamt, Token))
    ),
}))
"""
TWINS = {
    "cython": ["_context.context_cy", "_hamt.hamt_cy", "_hamt.trie_cy"],
    "pure": ["_context.context_py", "_hamt.hamt_py", "_hamt.trie_py"],
}
HOMES = {backend: modules[:2] for backend, modules in TWINS.items()}
MODULES = TWINS["cython"]


def run_report(cwd: Path, **env: str | None) -> CompletedProcess[str]:
    return run_python(["-c", REPORT], cwd=cwd, env={f"CONTEXTVARS_CY_{name}": value for name, value in env.items()})


@pytest.mark.parametrize("host", [None, "", "native", "thread"])
@pytest.mark.parametrize("backend", [None, "", "cython", "pure"])
def test_environment_decides(backend: str | None, host: str | None, tmp_path: Path) -> None:
    done = run_report(tmp_path, BACKEND=backend, HOST=host)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    expected = backend or "cython"
    assert report["backend"] == expected
    assert report["host"] == report["host at work"] == (host or "native")
    assert (report["twins"], report["homes"]) == (TWINS[expected], HOMES[expected])


CHOICES = {"BACKEND": "cython, pure", "HOST": "native, thread", "DEBUG": "0, 1"}
# As a library writes it that can do without the package.
OPTIONAL = "try:\n    import contextvars_cy\nexcept ImportError:\n    print('without')\n"


@pytest.mark.parametrize(
    "variable, value",
    [
        *[("BACKEND", value) for value in ("Pure", "cython ", "native", "cython, pure", "1")],
        *[("HOST", value) for value in ("Native", "thread ", "pure", "native, thread", "1")],
        *[("DEBUG", value) for value in ("2", "true", "0, 1")],
    ],
)
def test_an_unknown_value_is_an_error_also_to_who_can_do_without_the_package(
    variable: str, value: str, tmp_path: Path
) -> None:
    done = run_python(["-c", OPTIONAL], tmp_path, {f"CONTEXTVARS_CY_{variable}": value})
    assert (done.returncode, done.stdout) == (1, "")
    message = f"ValueError: CONTEXTVARS_CY_{variable}={value!r}: choose one of {CHOICES[variable]}, or leave it unset"
    assert done.stderr.splitlines()[-1] == message


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("BACKENDS", "BACKEND"),
        ("BACK_END", "BACKEND"),
        ("HOSTS", "HOST"),
        ("DEBUGGING", "DEBUG"),
        ("COLOUR", None),
        ("", None),
    ],
)
def test_a_misspelt_name_is_named_in_a_warning(name: str, nearest: str | None, tmp_path: Path) -> None:
    done = run_report(tmp_path, **{name: "pure"})
    assert (done.returncode, json.loads(done.stdout)["backend"]) == (0, "cython")
    assert done.stderr.count("Warning: ") == 1
    if nearest:
        hint = f"did you mean CONTEXTVARS_CY_{nearest}?"
    else:
        hint = "there are CONTEXTVARS_CY_BACKEND, CONTEXTVARS_CY_DEBUG, CONTEXTVARS_CY_HOST"
    assert f"RuntimeWarning: the environment variable CONTEXTVARS_CY_{name} does nothing; {hint}" in done.stderr


def test_names_that_are_right_or_of_others_are_no_matter(tmp_path: Path) -> None:
    env = dict.fromkeys(
        ["CONTEXTVARS_CY_BACKEND", "CONTEXTVARS_CY_HOST", "CONTEXTVARS_CY_DEBUG", "CONTEXTVARS_CYTHON"], ""
    )
    done = run_python(["-W", "error", "-c", REPORT], tmp_path, env)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def installed_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = "import contextvars_cy; print(contextvars_cy.__path__[0])"
    done = run_python(["-c", program], cwd=tmp_path_factory.mktemp("anywhere"))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.rstrip("\n"))


class Copy:
    """The installed package, copied to a folder where its extension modules can be spoilt."""

    def __init__(self, installed_package: Path, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "contextvars_cy"
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        # An editable installation may have been built for other Pythons too.
        other = [file.name for file in installed_package.rglob("*.so") if not file.name.endswith(suffix)]
        left_out = shutil.ignore_patterns("__pycache__", "*.c", "*.pyx", "_pure_build.txt", *other)
        shutil.copytree(installed_package, self.package, ignore=left_out)

    def extension_file(self, module: str) -> Path:
        return self.package / f"{module.replace('.', '/')}{sysconfig.get_config_var('EXT_SUFFIX')}"

    def break_modules(self, modules: Iterable[str]) -> None:
        for module in modules:
            assert self.extension_file(module).is_file()
            self.extension_file(module).write_bytes(b"This is no shared library." * 1000)

    def remove_modules(self, modules: Iterable[str]) -> None:
        for module in modules:
            self.extension_file(module).unlink()

    def run(self, *arguments: str, backend: str | None = None) -> CompletedProcess[str]:
        env = {"PYTHONPATH": str(self.folder), "CONTEXTVARS_CY_BACKEND": backend}
        # Without -S the hook of an editable install would find the modules that the copy lacks.
        return run_python(["-S", *arguments], cwd=self.folder, env=env)

    def report(self, done: CompletedProcess[str]) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["folder"] == str(self.package)
        return report


@pytest.fixture
def copy(installed_package: Path, tmp_path: Path) -> Copy:
    return Copy(installed_package, tmp_path)


def row(name: str, done: CompletedProcess[str]) -> str:
    (line,) = [line for line in done.stdout.splitlines() if line.split()[0] == name]
    return line.split(None, 1)[1]


def test_unspoilt_copy_runs_the_compiled_twin(copy: Copy) -> None:
    done = copy.run("-c", REPORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert copy.report(done)["twins"] == TWINS["cython"]


SOME = pytest.mark.parametrize("modules", [MODULES, *([module] for module in MODULES)], ids=["all", *MODULES])
REASON = "the compiled extension cannot be loaded: ImportError: "
MISSING = "no compiled extension is installed for this Python"


@SOME
def test_broken_extension_is_an_error_where_it_was_asked_for(modules: list[str], copy: Copy) -> None:
    copy.break_modules(modules)
    done = copy.run("-c", OPTIONAL, backend="cython")
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"RuntimeError: CONTEXTVARS_CY_BACKEND=cython, but {REASON}")
    assert any(copy.extension_file(module).name in last for module in modules)


@SOME
def test_broken_extension_is_a_warning_where_nothing_was_asked_for(modules: list[str], copy: Copy) -> None:
    copy.break_modules(modules)
    done = copy.run("-c", REPORT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning: ") == 1
    assert f"RuntimeWarning: contextvars_cy runs the pure backend, because {REASON}" in done.stderr
    report = copy.report(done)
    assert report["backend"] == "pure"
    # The module that is not broken may have been loaded, but nothing comes from it.
    assert report["homes"] == HOMES["pure"]


@SOME
def test_broken_extension_is_told_by_info(modules: list[str], copy: Copy) -> None:
    copy.break_modules(modules)
    done = copy.run("-m", "contextvars_cy", "info")
    assert done.returncode == 0, done.stderr
    assert row("backend", done).startswith(f"pure ({REASON}")
    assert row("extension", done) == str(copy.extension_file("_context.context_cy"))


def test_broken_extension_is_no_matter_to_the_pure_backend(copy: Copy) -> None:
    copy.break_modules(MODULES)
    done = copy.run("-c", REPORT, backend="pure")
    assert (done.returncode, done.stderr) == (0, "")
    assert copy.report(done)["twins"] == TWINS["pure"]


# A module that loads and then fails, as one does that was built against something this Python lacks.
FAILING = "import contextvars_cy._hamt.hamt_cy\nraise SystemError('made for another Python')\n"


def test_half_an_extension_is_not_used(copy: Copy) -> None:
    copy.remove_modules(["_context.context_cy"])
    (copy.package / "_context/context_cy.py").write_text(FAILING)
    done = copy.run("-W", "ignore", "-c", REPORT)
    assert done.returncode == 0, done.stderr
    assert copy.report(done)["homes"] == HOMES["pure"]
    done = copy.run("-c", REPORT, backend="cython")
    reason = "but the compiled extension cannot be loaded: SystemError: made for another Python;"
    assert reason in done.stderr.splitlines()[-1]


@SOME
def test_missing_extension_is_an_error_where_it_was_asked_for(modules: list[str], copy: Copy) -> None:
    copy.remove_modules(modules)
    done = copy.run("-c", OPTIONAL, backend="cython")
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"RuntimeError: CONTEXTVARS_CY_BACKEND=cython, but {MISSING}")
    assert "; where a C compiler works: CONTEXTVARS_CY_BACKEND=cython " in last
    assert last.endswith("; or choose the pure backend")


@SOME
def test_missing_extension_is_fine_where_nothing_was_asked_for(modules: list[str], copy: Copy) -> None:
    copy.remove_modules(modules)
    done = copy.run("-W", "error", "-c", REPORT)
    assert (done.returncode, done.stderr) == (0, "")
    report = copy.report(done)
    assert report["backend"] == "pure"
    assert (report["twins"], report["homes"]) == (TWINS["pure"], HOMES["pure"])


@SOME
def test_missing_extension_is_told_by_info(modules: list[str], copy: Copy) -> None:
    copy.remove_modules(modules)
    done = copy.run("-m", "contextvars_cy", "info")
    assert (done.returncode, done.stderr) == (0, "")
    assert row("backend", done) == f"pure ({MISSING})"
    expected = "none" if "_context.context_cy" in modules else str(copy.extension_file("_context.context_cy"))
    assert row("extension", done) == expected


@SOME
def test_running_a_program_on_a_missing_extension_is_refused_in_one_line(modules: list[str], copy: Copy) -> None:
    copy.remove_modules(modules)
    done = copy.run("-m", "contextvars_cy", "run", "--backend", "cython", "-m", "this")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"python -m contextvars_cy: --backend cython: {MISSING}; where a C compiler works: ")


def test_info_tells_of_an_extension_for_another_python(copy: Copy) -> None:
    copy.remove_modules(MODULES)
    other = copy.package / f"_context/context_cy.cpython-38-x86_64-linux-gnu{copy.extension_file('').suffix}"
    other.write_bytes(b"")
    done = copy.run("-m", "contextvars_cy", "info")
    assert row("backend", done) == f"pure (the extension that is installed is for another Python: {other.name})"


def test_info_tells_of_a_pure_build(copy: Copy) -> None:
    copy.remove_modules(MODULES)
    (copy.package / "_pure_build.txt").write_text("CPython 3.8.1: no C compiler works here\n", encoding="utf-8")
    done = copy.run("-m", "contextvars_cy", "info")
    assert row("backend", done) == "pure (a pure build, made by CPython 3.8.1: no C compiler works here)"


def test_info_tells_of_sources_in_front_of_the_installed_package(copy: Copy, tmp_path: Path) -> None:
    """As in a clone's folder, once the package is installed."""
    clone = tmp_path / "clone"
    shutil.copytree(copy.package, clone / "contextvars_cy", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    done = run_python(["-S", "-m", "contextvars_cy", "info"], clone, {"PYTHONPATH": str(copy.folder)})
    assert (done.returncode, done.stderr) == (0, "")
    assert row("backend", done) == (
        f"pure (no extension is built in {clone / 'contextvars_cy'}, which Python finds before the installed package, "
        f"{copy.package})"
    )
    assert row("remedy", done) == f"run Python in another folder than {clone}, without that on PYTHONPATH"
    elsewhere = copy.run("-m", "contextvars_cy", "info")
    assert row("backend", elsewhere) == "cython (the compiled extension works)"
