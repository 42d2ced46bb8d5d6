"""Provenance: one digest of everything that a result depends on, and the record of every result.

A result depends on the parameters that its stage reads, on the content of its inputs, and on the source code of its
stage with everything that the stage imports. Code is digested as a syntax tree, so comments, docstrings and layout do
not count. A file beside a module that the module names, such as the template of a page, counts as its code. The record
of a result is a small JSON file that is written last. It holds the provenance, a digest of the content, a checksum of
every file, and its own checksum.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from rap.errors import UserError
from rap.files import digest, digest_file, read_checked, write_checked

FORMAT = 1
PACKAGE = Path(__file__).parent

PARSING = Lock()  # in Python 3.11, concurrent calls of ast.parse raise SystemError


@dataclass(frozen=True)
class Provenance:
    """Digests of the parameters, of the source code, and of the content of each input, by the input's path."""

    params: str
    code: str
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest(asdict(self))


@dataclass(frozen=True)
class Record:
    """The facts of a finished job's result.

    `content` is the digest of the part that other stages read: a new result with the same content changes nothing
    downstream. `files` holds the SHA-256 of each file, by its name in the record's folder. `facts` is the stage's own.
    """

    stage: str
    item: dict[str, Any]
    provenance: Provenance
    content: str
    files: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, path: str | Path) -> None:
        write_checked(path, asdict(self) | {"format": FORMAT, "digest": self.provenance.digest})

    @classmethod
    def read(cls, path: str | Path) -> "Record":
        """Raises FileNotFoundError if the record is missing, and UserError if it is damaged or of another format."""
        try:
            values = read_checked(path)
            if values.pop("format") != FORMAT:
                raise ValueError
            del values["digest"]
            return cls(**values | {"provenance": Provenance(**values["provenance"])})
        except (ValueError, KeyError, TypeError):
            said = "damaged, or of another version of rap; run the stage that writes it again"
            raise UserError(f"{path}: {said}") from None

    @classmethod
    def open(cls, path: Path, command: str, *, files: Iterable[str] | None = ()) -> "Record":
        """The record, after a check of `files` beside it; None: all of its files.

        Raises UserError, which names the `command` to run, if one of them is missing or damaged.
        """
        try:
            record = cls.read(path)
        except FileNotFoundError:
            raise UserError(f"{path}: not there; run `{command}` first") from None
        except UserError:
            raise UserError(f"{path}: damaged, or of another version of rap; run `{command}` first") from None
        if damaged := record.damaged(path.parent, files):
            raise UserError(f"{path.parent / damaged[0]}: damaged; run `{command}` to make it again")
        return record

    def damaged(self, folder: Path, names: Iterable[str] | None = None) -> list[str]:
        """The files, of `names` or of all, that are missing from `folder` or whose bytes have changed."""
        chosen = self.files if names is None else names
        return [name for name in chosen if not _is_intact(folder / name, self.files.get(name, ""))]


def _is_intact(file: Path, checksum: str) -> bool:
    return file.is_file() and digest_file(file) == checksum


def content_of(path: str | Path) -> str:
    """A digest of a file's bytes or, of a folder, of the name, size and time of every file in it; "" if absent.

    Folders hold videos, and reading all of them takes too long. A changed video has another size or time.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        return digest([[str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    return digest_file(path) if path.is_file() else ""


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


@cache
def code(*modules: str) -> str:
    """Digest of the source code of modules of this package and of all its modules that they import."""
    return digest({name: [_syntax(file), _data(file)] for name, file in closure(*modules).items()})


@cache
def closure(*modules: str) -> dict[str, Path]:
    """`modules` and the modules of this package that they import, except under TYPE_CHECKING; with files."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file and name not in found:
            found[name] = file
            waiting += [*_imports(name, file), name.rpartition(".")[0]]
    return dict(sorted(found.items()))


def _file(name: str) -> Path | None:
    """The file of a module of this package; None for other modules, and for names in a module."""
    root, *parts = name.split(".")
    place = PACKAGE.joinpath(*parts)
    candidates = (place / "__init__.py", place.with_suffix(".py")) if root == PACKAGE.name else ()
    return next((file for file in candidates if file.is_file()), None)


@cache
def _imports(name: str, file: Path) -> tuple[str, ...]:
    return tuple(_imported(_tree(file), name if file.name == "__init__.py" else name.rpartition(".")[0]))


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """Names in the import statements below a node. Expressions hold no statements, so they are not visited."""
    for child in _statements(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parents = package.split(".")[: None if child.level < 2 else 1 - child.level]
            base = ".".join([*parents, child.module or ""]).rstrip(".") if child.level else str(child.module)
            yield base
            yield from (f"{base}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _imported(ast.Module(child.orelse, []), package)
        else:
            yield from _imported(child, package)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The statements, and the parts with statements, such as a handler of exceptions, directly below a node."""
    for value in vars(node).values():
        if isinstance(value, list):
            yield from (item for item in value if isinstance(item, ast.stmt | ast.excepthandler | ast.match_case))


@cache
def _tree(file: Path) -> ast.Module:
    with PARSING:
        return ast.parse(file.read_text(encoding="utf-8"), str(file))


@cache
def _syntax(file: Path) -> str:
    words: list[str] = []
    _spell(_tree(file), words)
    return digest("\n".join(words))


@cache
def _data(file: Path) -> dict[str, str]:
    """SHA-256 of the files beside a module whose names are string literals in it."""
    named = {node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant)}
    beside = (other for other in sorted(file.parent.iterdir()) if other.suffix != ".py" and other.is_file())
    return {other.name: digest_file(other) for other in beside if other.name in named}


def _spell(node: Any, words: list[str]) -> None:
    """Append a syntax tree as words, without docstrings, positions and empty fields.

    New versions of Python add fields that are empty for older code; without empty fields the digests agree between
    versions.
    """
    if isinstance(node, list):
        words.append("[")
        for item in node:
            _spell(item, words)
        words.append("]")
    elif isinstance(node, ast.AST):
        words.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if name != "kind" and value is not None and value != []:
                words.append(name)
                _spell(value[1:] if name == "body" and _has_docstring(node) else value, words)
        words.append(")")
    else:
        words.append(repr(node))


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
