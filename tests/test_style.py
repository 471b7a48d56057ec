"""Rules of style that no linter knows; `python -m tests.test_style PATH ...` lists what breaks
them.

ruff holds the others: line length, docstrings, first lines in the imperative.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("gpu_dcgen", "cpu_fallback")
MAX_PARAMETERS = 8
MAX_LINES = 70
MAX_SUMMARY = 88  # characters of a docstring's first line, after the quotes
# Participles and fill-in words say nothing about what a variable holds.
VAGUE_NAMES = frozenset(
    {
        "able",
        "anew",
        "found",
        "had",
        "have",
        "how",
        "kept",
        "made",
        "of",
        "once",
        "one",
        "others",
        "said",
        "searched",
        "taken",
        "there",
        "told",
        "what",
        "which",
        "whose",
    }
)
VAGUE_WORDS = re.compile(
    r"\b(kept|told|anew|goes on|hears|whose|neighbour\w*|data sets?|colour(?!_)|behaviour"
    r"|licence)\b",
    re.IGNORECASE,
)
# Each of these takes keyword-only options, one a setting of its users.
MANY_OPTIONS = {
    "gpu_dcgen/auditing/dataset_audit.py": "audit() takes the options of the command line",
    "gpu_dcgen/cli/build_commands.py": "a parameter is an option of the command line",
    "gpu_dcgen/cli/check_commands.py": "a parameter is an option of the command line",
    "gpu_dcgen/cli/dataset_commands.py": "a parameter is an option of the command line",
    "gpu_dcgen/dataset_generator/builder.py": "build() takes the options of the command line",
    "gpu_dcgen/training/stream.py": (
        "a stream takes its options one by one, as PyTorch's loaders do"
    ),
}


def sources(paths: list[str]) -> Iterator[Path]:
    for path in paths:
        yield from sorted((ROOT / path).rglob("*.py")) if (ROOT / path).is_dir() else [ROOT / path]


def names_bound(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each variable, parameter and function that the module binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name


def count_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """All but `self` and `cls`."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """With decorators, without the docstring."""
    first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    body = function.body
    docstring = body[0] if ast.get_docstring(function) is not None else None
    return (
        function.end_lineno
        - first
        + 1
        - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)
    )


def violations(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    tree, name = ast.parse(text), path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if (n := count_lines(node)) > MAX_LINES:
                yield f"{name}:{node.lineno}: {node.name} has {n} lines, of {MAX_LINES}"
            if (n := count_parameters(node)) > MAX_PARAMETERS and name not in MANY_OPTIONS:
                yield f"{name}:{node.lineno}: {node.name} has {n} parameters, of {MAX_PARAMETERS}"
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            if len(first) > MAX_SUMMARY:
                line = getattr(node, "lineno", 1)
                yield f"{name}:{line}: first docstring line of {len(first)} characters"
    for line, bound in names_bound(tree):
        if bound.strip("_") in VAGUE_NAMES:
            yield f"{name}:{line}: `{bound}` does not say what it holds"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # a string without blanks is a key of a file, or a name
        is_key = token.type == tokenize.STRING and " " not in token.string
        if token.type in (tokenize.STRING, tokenize.COMMENT) and not is_key:
            for hit in VAGUE_WORDS.finditer(token.string):
                yield f"{name}:{token.start[0]}: the word {hit.group()!r}"


def test_the_sources_keep_the_rules_of_style():
    assert not [text for path in sources([*PACKAGES]) for text in violations(path)]


def test_each_rule_is_seen_to_be_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    parameters = ", ".join(f"p{i}" for i in range(MAX_PARAMETERS + 1))
    body = "    pass\n" * MAX_LINES
    file = tmp_path / "bad.py"
    file.write_text(
        f'"""{"x" * (MAX_SUMMARY + 1)}"""\ndef f({parameters}):\n{body}kept = 1  # anew\n'
    )
    assert len(list(violations(file))) == 5
    file.write_text('"""Good."""\ndef f(self, a):\n    return a\n')
    assert not list(violations(file))


if __name__ == "__main__":
    lines = [text for path in sources(sys.argv[1:] or [*PACKAGES]) for text in violations(path)]
    print(*lines, f"{len(lines)} violations", sep="\n")
    sys.exit(bool(lines))
