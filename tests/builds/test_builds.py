"""Installing: compiled where a compiler works, pure where none does, from the tree and from the source distribution."""

from __future__ import annotations

import configparser
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from helpers import environment, run_python

REPOSITORY = Path(__file__).resolve().parents[2]
NO_COMPILER = {"CC": "/bin/false"}
PURE_BUILD = "contextvars_cy: a pure build, without the compiled extension: "


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a fresh checkout or an unpacked source distribution has it: what is built here stays out."""
    tree = tmp_path_factory.mktemp("tree") / "contextvars_cy"
    if (REPOSITORY / ".git").exists():
        list_files = ["git", "ls-files", "-co", "--exclude-standard"]
        listed = subprocess.run(list_files, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    else:
        listed = (REPOSITORY / "contextvars_cy.egg-info" / "SOURCES.txt").read_text(encoding="utf-8")
    names = listed.splitlines()
    for name in names:
        if (REPOSITORY / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((REPOSITORY / name).read_bytes())
    return tree


def make_venv(folder: Path, *packages: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if packages:
        done = pip(["install", *packages], python=python)
        assert done.returncode == 0, done.stdout + done.stderr
    return python


def pip(
    arguments: Iterable[object], python: str | Path = sys.executable, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # Pip's own cache of wheels would answer for a build that never ran.
    options = ["--no-cache-dir", "--disable-pip-version-check"]
    # A package in the folder that pip runs in, or on PYTHONPATH, would count as installed.
    return run_python(
        ["-m", "pip", *options, *arguments],
        cwd=Path(python).parent,
        env={"PYTHONPATH": None, **(env or {})},
        python=python,
    )


def build_wheel(
    source: Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    python: str | Path = sys.executable,
    options: Iterable[str] = (),
) -> tuple[Path, str]:
    done = pip(["wheel", "-v", "--no-deps", *options, "-w", folder, source], python=python, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = Path(folder).glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.fixture(scope="module")
def compiled_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return build_wheel(tree, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def pure_wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return build_wheel(tree, tmp_path_factory.mktemp("pure"), env=NO_COMPILER)


@pytest.fixture(scope="module")
def source_distribution(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    done = run_python(["setup.py", "-q", "sdist", "--dist-dir", folder], cwd=tree)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


def names_in(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def extensions_in(wheel: Path) -> list[str]:
    return sorted(Path(name).name.partition(".")[0] for name in names_in(wheel) if name.endswith((".so", ".pyd")))


def install(folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> tuple[dict[str, str], Path]:
    """What `info` says where this alone is installed, as rows by their names, and the interpreter."""
    python = make_venv(folder / "venv")
    done = pip(["install", *arguments], python=python, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return info(folder, python), python


def info(folder: Path, python: Path) -> dict[str, str]:
    done = run_python(["-m", "contextvars_cy", "info"], cwd=folder, env={"PYTHONPATH": None}, python=python)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(None, 1) for line in done.stdout.splitlines())


def follow(remedy: str, folder: Path) -> None:
    """Run the command that `info` names, as it stands."""
    command = remedy.partition(": ")[2]
    assert command.startswith("CONTEXTVARS_CY_BACKEND=cython ")
    env = environment({"PYTHONPATH": None})
    done = subprocess.run(command, cwd=folder, env=env, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


PYTHON = f"{platform.python_implementation()} {platform.python_version()}"


def test_with_a_compiler_the_wheel_holds_the_extension(compiled_wheel: tuple[Path, str], tmp_path: Path) -> None:
    wheel, output = compiled_wheel
    assert "none-any" not in wheel.name
    assert extensions_in(wheel) == ["context_cy", "hamt_cy", "trie_cy"]
    assert PURE_BUILD not in output
    rows, _ = install(tmp_path, "--no-index", wheel)
    assert rows["backend"] == "cython (the compiled extension works)"
    assert rows["version"] == wheel.name.split("-")[1]
    assert "remedy" not in rows


@pytest.mark.parametrize("flag", ["-DCPYTHON_FIELDS_ARE_KNOWN=0", "-DCPYTHON_LAYOUT_IS_OTHER"])
def test_where_the_interpreters_structs_are_not_those_that_are_known(flag: str, tree: Path, tmp_path: Path) -> None:
    """As in a Python later than any that has been tried, which the build knows, or only the probe at import finds out:
    the ways that need none of them are taken."""
    wheel, _ = build_wheel(tree, tmp_path, env={"CFLAGS": flag})
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    for host in ("native", "thread"):
        tests = [tree / "tests" / folder for folder in ("engine", host)]
        env = {
            "PYTHONPATH": str(tmp_path / "installed"),
            "CONTEXTVARS_CY_BACKEND": "cython",
            "CONTEXTVARS_CY_HOST": host,
        }
        # Others want the tree as it was.
        done = run_python(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_compiler_the_wheel_is_pure_and_says_so(pure_wheel: tuple[Path, str], tmp_path: Path) -> None:
    wheel, output = pure_wheel
    assert wheel.name.endswith("-py3-none-any.whl")
    assert extensions_in(wheel) == []
    assert output.count(PURE_BUILD + "no C compiler works here") == output.count(PURE_BUILD) == 1
    rows, python = install(tmp_path, "--no-index", wheel)
    assert rows["backend"].startswith(f"pure (a pure build, made by {PYTHON}: no C compiler works here: ")
    assert rows["extension"] == "none"
    assert rows["remedy"] == (
        f"where a C compiler works: CONTEXTVARS_CY_BACKEND=cython {shlex.quote(str(python))} -m pip install "
        "--no-cache-dir --force-reinstall --no-binary contextvars_cy contextvars_cy"
    )


@pytest.mark.parametrize("options", [[], ["-e"]], ids=["installed", "editable"])
def test_what_info_advises_after_a_pure_build_mends_it(options: list[str], tree: Path, tmp_path: Path) -> None:
    sources = tmp_path / "the sources"
    shutil.copytree(tree, sources, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    rows, python = install(tmp_path, *options, sources, env=NO_COMPILER)
    assert rows["backend"].startswith(f"pure (a pure build, made by {PYTHON}: no C compiler works here: ")
    follow(rows["remedy"], tmp_path)
    rows = info(tmp_path, python)
    assert rows["backend"] == "cython (the compiled extension works)"
    assert not Path(rows["package"], "_pure_build.txt").exists()
    # And back: what was compiled in place is not imported any more.
    done = pip(["install", "--force-reinstall", *options, sources], python=python, env=NO_COMPILER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert info(tmp_path, python)["backend"].startswith("pure (a pure build, ")


@pytest.mark.parametrize("name", ["mine", "mine and more"])
def test_make_empties_no_folder_of_the_users(name: str, tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    letter = tmp_path / name / "letter"
    letter.write_text("dear", encoding="utf-8")
    done = subprocess.run(["make", "demo", f"VENV={folder}"], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 2 and "choose a" in done.stdout, done.stdout + done.stderr
    assert letter.read_text(encoding="utf-8") == "dear" and (tmp_path / "mine").exists() == (name == "mine")


@pytest.mark.parametrize("which", ["compiled_wheel", "pure_wheel"])
def test_wheels_hold_what_users_need_and_nothing_else(which: str, request: pytest.FixtureRequest) -> None:
    wheel = request.getfixturevalue(which)[0]
    names = names_in(wheel)
    shipped = {Path(name).name for name in names}
    assert {
        "__init__.pxd",
        "context_cy.pxd",
        "hamt_cy.pxd",
        "page.html",
        "py.typed",
        "LICENSE",
        "_version.py",
        "context_py.py",
    } <= shipped
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {Path(name).parts[0] for name in names} == {"contextvars_cy", "pytest_contextvars_cy.py", information}
    with zipfile.ZipFile(wheel) as archive:
        entry_points = configparser.ConfigParser(delimiters="=")
        entry_points.read_string(archive.read(f"{information}/entry_points.txt").decode())
    assert {group: dict(entry_points[group]) for group in entry_points.sections()} == {
        "pytest11": {"pytest_contextvars_cy": "pytest_contextvars_cy"},
        "opentelemetry_context": {
            "contextvars_cy": "contextvars_cy.integrations._opentelemetry_context:RuntimeContext"
        },
        "opentelemetry_propagator": {"contextvars_cy": "contextvars_cy.integrations.opentelemetry:BaggagePropagator"},
    }
    assert not [name for name in names if name.endswith((".c", ".pyx"))]


def test_a_pure_build_can_be_asked_for(tree: Path, tmp_path: Path) -> None:
    wheel, output = build_wheel(
        tree, tmp_path, env={"CONTEXTVARS_CY_BACKEND": "pure", "CONTEXTVARS_CY_HOSTS": "thread"}
    )
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "contextvars_cy: the environment variable CONTEXTVARS_CY_HOSTS does nothing; there are" in output
    assert output.count(PURE_BUILD + "CONTEXTVARS_CY_BACKEND=pure asks for it") == output.count(PURE_BUILD) == 1


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"CONTEXTVARS_CY_BACKEND": "cython", **NO_COMPILER}, "CONTEXTVARS_CY_BACKEND=cython, but no C compiler works"),
        ({"CONTEXTVARS_CY_BACKEND": "fast"}, "CONTEXTVARS_CY_BACKEND='fast': choose one of cython, pure"),
    ],
)
def test_a_build_that_cannot_be_had_fails_with_the_reason(
    tree: Path, tmp_path: Path, env: dict[str, str], text: str
) -> None:
    done = pip(["wheel", "--no-deps", "-w", tmp_path, tree], env=env)
    assert done.returncode != 0
    assert text in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_the_source_distribution_is_the_whole_project(source_distribution: Path, tree: Path) -> None:
    files = (path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    checkout = {name for name in files if not name.startswith((".ci/", ".git"))}
    generated = {name for name in checkout if name.startswith(("build/", "contextvars_cy.egg-info/"))}
    packed = {path.relative_to(source_distribution).as_posix() for path in source_distribution.rglob("*")}
    assert not {name for name in checkout - generated - packed if not name.endswith((".c", ".so"))}
    assert not [name for name in packed if name.endswith((".c", ".so"))]


def test_the_source_distribution_builds_without_the_repository(source_distribution: Path, tmp_path: Path) -> None:
    wheel, _ = build_wheel(source_distribution, tmp_path)
    assert extensions_in(wheel) == ["context_cy", "hamt_cy", "trie_cy"]


def test_without_cython_and_without_a_network_the_build_is_pure(tree: Path, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv", "setuptools>=77", "setuptools-scm>=8")
    env = {"PIP_NO_INDEX": "1"}
    wheel, output = build_wheel(tree, tmp_path / "wheel", env=env, python=python, options=["--no-build-isolation"])
    assert wheel.name.endswith("-py3-none-any.whl")
    assert output.count(PURE_BUILD + "Cython is not installed") == output.count(PURE_BUILD) == 1


def test_without_cython_an_isolated_build_brings_it(tree: Path, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    wheel, _ = build_wheel(tree, tmp_path / "wheel", python=python)
    assert extensions_in(wheel) == ["context_cy", "hamt_cy", "trie_cy"]
