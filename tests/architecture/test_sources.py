"""What the sources promise about themselves: arrows between modules, tenants, nothing of one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from django.apps import apps
from django.db.models import Model

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ("seedvr_site", "accounts", "billing", "restorations")
#: Folders at any depth that are made here or come from elsewhere.
NOT_OURS = {".hypothesis", ".git", ".venv", "var", "vendor", "node_modules", "__pycache__", "test-results"}
MAX_LINES = 500


def our_files(*suffixes: str) -> Iterator[Path]:
    """Yields the files that are ours and end so, or all of them."""
    for folder, subfolders, names in os.walk(ROOT):
        # Changed in place: os.walk does not go into what is missing here.
        subfolders[:] = sorted(
            name for name in subfolders if name not in NOT_OURS and not name.endswith("_cache")
        )
        # In a worktree, .git is a file.
        kept = sorted(name for name in names if name not in NOT_OURS)
        yield from (Path(folder, name) for name in kept if not suffixes or name.endswith(suffixes))


def python_files(*folders: str) -> list[Path]:
    """Returns the Python files below these folders, migrations apart."""
    wanted = [ROOT / folder for folder in folders]
    return [
        path
        for path in our_files(".py")
        if "migrations" not in path.parts and any(folder in path.parents for folder in wanted)
    ]


def imported_modules(path: Path) -> set[str]:
    """Returns the full names of what a file imports, also inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_point_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_site_knows_the_contract_and_nothing_else_of_the_worker() -> None:
    for path in python_files(*SITE):
        beyond = {
            name
            for name in imported_modules(path)
            if name.startswith("gpu_worker") and not name.startswith("gpu_worker.contract")
        }
        assert not beyond, f"{path.relative_to(ROOT)} imports {beyond}"


def test_the_worker_knows_no_django() -> None:
    for path in python_files("gpu_worker"):
        django = {name for name in imported_modules(path) if name.split(".")[0] == "django"}
        assert not django, f"{path.relative_to(ROOT)} imports {django}"


def test_the_site_knows_no_torch() -> None:
    for path in python_files(*SITE):
        torch = {name for name in imported_modules(path) if name.split(".")[0] in ("torch", "runpod")}
        assert not torch, f"{path.relative_to(ROOT)} imports {torch}"


def test_views_and_sockets_start_from_the_workspace() -> None:
    bare = re.compile(r"\.objects\.(get|all|filter|exclude|first|last|values|in_bulk)\(")
    doors = [
        path for path in python_files(*SITE) if "views" in path.parts or path.stem in ("views", "consumers")
    ]
    assert doors
    for path in doors:
        found = [line.strip() for line in path.read_text().splitlines() if bare.search(line)]
        assert not found, f"{path.relative_to(ROOT)}: {found}; start from .objects.for_workspace(...)"


def tenant_models() -> list[type[Model]]:
    """Returns the models whose rows belong to a workspace. A membership is what makes one belong to it."""
    return [
        model
        for model in apps.get_models()
        if model._meta.app_label in SITE
        and model.__name__ != "Membership"
        and "workspace" in {field.name for field in model._meta.get_fields() if field.concrete}
    ]


def test_every_tenant_model_is_asked_by_workspace() -> None:
    models = tenant_models()
    assert {"Video", "Restoration", "CreditEntry"} <= {model.__name__ for model in models}
    for model in models:
        assert hasattr(model._default_manager, "for_workspace"), model.__name__


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a path of one machine", r"(?<![\w.$}])/(root|home|work|Users)/[a-z]"),
        (
            "a package registry",
            # Each name has one letter in brackets, so that this file does not hold it either.
            r"\b(py[p]i\.org|python[h]osted\.org|registry\.n[p]mjs\.org|download\.py[t]orch\.org)",
        ),
        ("an option that names a registry", r"--(extra-)?index-url|--find-links"),
    ],
)
def test_committed_files_hold_nothing_of_one_machine(what: str, pattern: str) -> None:
    found = re.compile(pattern)
    for path in our_files():
        if path == Path(__file__) or b"\0" in (content := path.read_bytes()):
            continue
        match = found.search(content.decode(errors="replace"))
        assert match is None, f"{path.relative_to(ROOT)} holds {what}: {match and match.group()}"


def test_no_file_is_too_long_to_read() -> None:
    for path in python_files(*SITE, "gpu_worker", "tests"):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {lines} lines"


def test_every_variable_is_explained() -> None:
    site = r"env\.(?:text|flag|integer|choice|words)"
    worker = r"_(?:engine|model|path|memory|gpus|whole|seconds)"
    reader = re.compile(rf"(?:{site}|{worker})\(\s*(?:environment, )?\"([A-Z_]+)\"")
    sources = [*python_files("seedvr_site"), *python_files("gpu_worker")]
    read = {name for path in sources for name in reader.findall(path.read_text())}
    explained = set(re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert len(read) > 20
    assert read - explained == set(), "explain these in .env.example"
    assert explained - read == {"DJANGO_SETTINGS_MODULE"}, "nothing reads these"


def test_every_secret_comes_from_a_file_in_production() -> None:
    reader = re.compile(r"env\.(?:text|words)\(\s*\"([A-Z_0-9]+)\"")
    read = {name for path in python_files("seedvr_site") for name in reader.findall(path.read_text())}
    secret = {name for name in read if re.search("SECRET|_KEY|PASSWORD|(DATABASE|REDIS)_URL", name)}
    site = yaml.safe_load((ROOT / "compose/production.yml").read_text())
    assert len(secret) > 8
    assert {f"{name}_FILE": f"/run/secrets/{name.lower()}" for name in secret} == site["x-site"][
        "environment"
    ]
    assert {name.lower() for name in secret} == set(site["x-site"]["secrets"]) == set(site["secrets"])
