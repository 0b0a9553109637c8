"""The documents agree with the code: examples run, links lead somewhere, names exist, drawings are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import npstyle

ROOT = Path(__file__).parents[1]
REGISTRY = "npstyle._registry"  # lies in weights/, see pyproject.toml


def modules_of(package: Any) -> list[str]:
    """A package and all modules inside of it; a package that can't be imported is an error."""

    def fail(name: str) -> None:
        raise ImportError(f"found no way to import {name}")

    inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=fail)
    return [package.__name__, *(module.name for module in inside)]


MODULES = sorted(
    name
    for name in modules_of(npstyle)
    if name.rpartition(".")[2] != "__main__" and not name.startswith(REGISTRY)
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "weights" / "README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
SOURCES = sorted(
    path
    for folder in ("npstyle", "tests", "benchmarks", "examples", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyx", ".pxd", ".h")
)
# Modules and packages for readers and library users: everything public in them is documented.
STUDIED = (
    "layers",
    "fused",
    "padding",
    "losses",
    "temporal",
    "regions",
    "gradcheck",
    "images",
    "images.color",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_source_file_is_a_module_whose_examples_run() -> None:
    """No file, and no folder without an __init__.py, is left out silently."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "npstyle").rglob("*.py")
        if path.name != "__main__.py"
    }
    compiled = {f"npstyle._kernels.{path.stem}" for path in (ROOT / "npstyle/_kernels").glob("*.pyx")}
    compiled.add("npstyle._kernels._memory_views")  # Cython's own: setup.py
    assert set(MODULES) - compiled == files


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


# Names whose docstrings have to have an example that runs.
SHOWN = (
    "npstyle.stylize",
    "npstyle.VGG19",
    "npstyle.Objective",
    "npstyle.Settings",
    "npstyle.load_weights",
)


@pytest.mark.parametrize("name", SHOWN)
def test_main_entry_points_have_examples(name: str) -> None:
    thing = getattr(npstyle, name.removeprefix("npstyle."))
    tests = doctest.DocTestFinder(recurse=False).find(thing, name)
    assert sum(len(test.examples) for test in tests) > 0


WITH_EXAMPLES = [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_examples_in_the_docs(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples_in_the_docs() -> None:
    pages = {f"docs/{name}.md" for name in ("lbfgs", "library", "losses", "numerics", "pooling-and-relu")}
    assert pages <= set(map(name_of, WITH_EXAMPLES))


@pytest.mark.parametrize("name", [name for name in npstyle.__all__ if name != "__version__"])
def test_public_names_are_documented(name: str) -> None:
    thing = getattr(npstyle, name)
    assert is_documented(thing)
    assert len(thing.__doc__.splitlines()[0]) > 20


def is_documented(thing: Any) -> bool:
    """A first line of some words; of a class its own, not one inherited."""
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    return len((text or "").partition("\n")[0].split()) > 1


def public_things(module: Any) -> Iterator[tuple[str, Any]]:
    """Functions, classes and their methods that a module or package defines and doesn't hide."""
    inside = f"{module.__name__}." if hasattr(module, "__path__") else None
    for name, thing in vars(module).items():
        home = str(getattr(thing, "__module__", None))
        defined_here = home == module.__name__ or (inside is not None and home.startswith(inside))
        if name.startswith("_") or not defined_here:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for method, function in vars(thing).items():
                if not method.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("module", STUDIED)
def test_what_is_to_be_studied_is_documented(module: str) -> None:
    things = dict(public_things(importlib.import_module(f"npstyle.{module}")))
    assert things
    assert [name for name, thing in things.items() if not is_documented(thing)] == []


def test_a_missing_docstring_is_seen() -> None:
    def bare() -> None:
        pass

    class Heir(Path):
        pass

    assert not is_documented(bare)
    assert not is_documented(Heir)
    assert is_documented(is_documented)


def test_unknown_public_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stylise'"):
        npstyle.stylise  # noqa: B018


def without_blocks(text: str) -> str:
    """Blocks of code have brackets that are no links, and # that is no heading."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(?: {4}.*\n|\n)+", "\n", text)


def links(text: str) -> list[str]:
    """Targets of links and pictures that lead to other files or headings of the project."""
    prose = re.sub(r"`[^`\n]*`", "code", without_blocks(text))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links: small letters, hyphens for spaces, nothing else."""
    headings = re.findall(r"^#+ +(.*?) *$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, text: str) -> list[str]:
    dead = []
    for link in links(text):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page, page.read_text(encoding="utf-8")) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("## Long sums: `x[0](y)`, *and* more\n")
    text = """# A page

[1](other.md) [2](nowhere.md) [3](#a-page) [4](#another) ![5](other.md#long-sums-x0y-and-more)
[6](other.md#x) [7](https://example.org/x) `a[0](b)`

    code = a[8](c)

[9](gone.md)
"""
    page.write_text(text)
    assert dead_links(page, text) == ["nowhere.md", "#another", "other.md#x", "gone.md"]


def missing_files(text: str) -> list[str]:
    """Names such as npstyle/layers.py, docs/losses.md or npstyle/cli/ that are no file or folder."""
    top = r"(?<![\w/.-])(?:npstyle|tests|docs|benchmarks|examples|tools|weights)/"
    files = set(re.findall(top + r"[\w./-]*\.(?:py|pyx|pxd|h|md|json|sh|ipynb)\b", text))
    folders = set(re.findall(top + r"(?:\w+/)*(?![\w.*-])", text))
    missing = [name for name in files if not (ROOT / name).is_file()]
    return sorted(missing + [name for name in folders if not (ROOT / name).is_dir()])


def missing_names(text: str) -> list[str]:
    """Names such as npstyle.layers.Conv2D that can't be imported."""
    return sorted(name for name in set(re.findall(r"\bnpstyle(?:\.[A-Za-z_]\w*)+", text)) if not exists(name))


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    try:
        importlib.import_module(name)
    except ImportError:
        place, _, attribute = name.rpartition(".")
        if not place or not exists(place):
            return False
        try:
            thing = importlib.import_module(place)
        except ImportError:
            outer, _, inner = place.rpartition(".")
            thing = getattr(importlib.import_module(outer), inner)
        return hasattr(thing, attribute)
    return True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert missing_files(text) == []
    assert missing_names(text) == []


def test_missing_names_are_seen() -> None:
    text = "npstyle.layers.Conv2D.forward npstyle.nothing npstyle/layers.py, npstyle.VGG19 (docs/nothing.md)."
    assert missing_names(text) == ["npstyle.nothing"]
    assert missing_files(text) == ["docs/nothing.md"]
    assert missing_files("npstyle/nowhere/, npstyle/cli/") == ["npstyle/nowhere/"]


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_sources_name_pages_that_are_there(source: Path) -> None:
    if source == Path(__file__):
        return  # it names some that are not there
    pages = re.findall(r"\bdocs/[\w./-]+\.md\b", source.read_text(encoding="utf-8"))
    assert [page for page in pages if not (ROOT / page).is_file()] == []


REFERENCE = re.compile(r"((?:docs|weights)/[\w-]+\.md)(?:#([\w-]+))?")


@pytest.mark.parametrize("module", ["layers", "losses", "temporal"])
def test_every_layer_and_loss_says_where_it_is_derived(module: str) -> None:
    """An equation of the paper, or a place in the docs that is there."""
    for name, thing in public_things(importlib.import_module(f"npstyle.{module}")):
        if "." in name or name in ("Layer", "sum_of_squares", "Anchor"):
            continue  # methods, the protocol of all layers, a sum, and a record
        text = inspect.getdoc(thing) or ""
        pages = REFERENCE.findall(text)
        assert pages or re.search(r"equations? \d", text), f"{name} says nothing of where it comes from"
        for page, anchor in pages:
            assert not anchor or anchor in anchors((ROOT / page).read_text(encoding="utf-8")), (
                f"{page}#{anchor}"
            )


ARCHITECTURE = ROOT / "docs" / "architecture.md"
# Left out of the drawing: what everything may import.
NOT_DRAWN = {"errors", "_typing", "architecture", "_version", "__main__", "__init__"}


def drawn_imports(text: str) -> dict[str, set[str]]:
    """Arrows of the first mermaid drawing: `a --> b & c`."""
    drawing = text.partition("```mermaid")[2].partition("```")[0]
    arrows: dict[str, set[str]] = {}
    for importer, imported in re.findall(r"^ *(\w+) --> (.+)$", drawing, flags=re.MULTILINE):
        arrows.setdefault(importer, set()).update(imported.split(" & "))
    return arrows


def actual_imports() -> dict[str, set[str]]:
    """Which modules and packages directly inside of npstyle import which others, wherever in a file."""
    names = {path.stem for path in (ROOT / "npstyle").iterdir() if (path / "__init__.py").is_file()}
    names |= {path.stem for path in (ROOT / "npstyle").glob("*.py")}
    names -= NOT_DRAWN
    imports: dict[str, set[str]] = {name: set() for name in names}
    for path in (ROOT / "npstyle").rglob("*.py"):
        importer = path.relative_to(ROOT / "npstyle").parts[0].removesuffix(".py")
        if importer in names:
            imports[importer] |= imported_by(path.read_text(encoding="utf-8")) & (names - {importer})
    return imports


def imported_by(source: str) -> set[str]:
    """Modules and packages directly inside of npstyle that a file imports."""
    full = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            full |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            full |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in full if name.startswith("npstyle.")}


def reachable(arrows: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def test_import_graph_is_drawn_as_it_is() -> None:
    """Each arrow is an import, and each import is an arrow or follows from several."""
    drawn, actual = drawn_imports(ARCHITECTURE.read_text(encoding="utf-8")), actual_imports()
    arrows = {(name, other) for name in drawn for other in drawn[name]}
    imports = {(name, other) for name in actual for other in actual[name]}
    implied = {(name, other) for name in actual for other in reachable(drawn, name)}
    assert arrows - imports == set()
    assert imports - implied == set()


def test_every_module_is_in_the_table_of_modules() -> None:
    table = ARCHITECTURE.read_text(encoding="utf-8").partition("## Who imports whom")[0]
    named = set(re.findall(r"`(\w+)/?`", table))
    assert set(actual_imports()) | {"errors", "_typing", "architecture"} <= named


def test_textbook_is_as_long_as_the_readme_says() -> None:
    """Steps 1 to 5 of the reading order are an evening's reading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    order = readme.partition("## Reading order")[2]
    stated = re.search(r"about ([\d,]+) lines", order)
    assert stated
    steps = order[order.index("\n1. ") : order.index("\n6. ")]
    files = {link for link in links(steps) if link.endswith((".md", ".py"))}
    assert len(files) == 8
    lines = sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in files)
    assert abs(lines - int(stated[1].replace(",", ""))) <= 100
