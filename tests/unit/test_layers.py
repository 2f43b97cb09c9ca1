"""The design's layers hold: a layer imports only those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import scistream

_ROOT = Path(scistream.__file__).parent
_LAYERS = {
    "errors": 0,
    "terms": 0,
    "addresses": 0,
    "atomic_files": 0,
    "clocks": 0,
    "durations": 0,
    "places": 0,
    "protocol": 1,
    "certificates": 1,
    "engines": 2,
    "auth": 2,
    "hops": 2,
    "control_server": 3,
    "client": 3,
    "cli": 4,
    "demo": 5,
    "reporting": 5,
}
# Not those that protoc generated, and not the package itself: it is of no layer.
_MODULES = sorted(path for path in _ROOT.rglob("*.py") if "_pb2" not in path.name and path != _ROOT / "__init__.py")


def _room(module: str) -> str:
    return module.split(".")[1]


def _all_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _imports(path: Path) -> Iterator[str]:
    return (name for name in _all_imports(path) if name.startswith("scistream."))


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_a_module_imports_only_its_own_room_and_lower_layers(path: Path) -> None:
    own = _room("scistream." + ".".join(path.relative_to(_ROOT).with_suffix("").parts))
    above = [name for name in _imports(path) if _room(name) != own and _LAYERS[_room(name)] >= max(_LAYERS[own], 1)]
    assert above == []


def test_the_library_knows_nothing_of_ansible_and_the_modules_nothing_of_grpc() -> None:
    plugins = _ROOT.parents[1] / "plugins"
    # The demo is what runs a playbook.
    library = [path for path in _MODULES if "demo" not in path.parts]
    assert not [path for path in library if {name.split(".")[0] for name in _all_imports(path)} & {"ansible"}]
    assert not [
        path for path in plugins.rglob("*.py") if {"grpc"} & {name.split(".")[0] for name in _all_imports(path)}
    ]
