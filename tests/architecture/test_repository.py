from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from orchestration import supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("quant", "adapters", "strategies", "assets", "orchestration", "services")
MODULES = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
# Built from pieces, so that this file does not find itself.
FORBIDDEN_TEXT = {
    "an address of a package registry": re.compile(
        "py" + r"pi\.org|python" + r"hosted\.org|registry\.npm" + r"js|deb\.debian" + r"\.org", re.IGNORECASE
    ),
    "an absolute path of one machine": re.compile(r"(?<![\w.$])/" + r"(?:root|home/\w+|Users/\w+|work|opt/\w+)/[\w.-]+"),
    "a password, key or token": re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{30,}"),
}


def tracked_files() -> list[Path]:
    """Files that are or would be committed."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [path for name in listed.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def test_every_module_has_a_name_that_says_what_is_in_it() -> None:
    assert MODULES
    assert [path for path in MODULES if VAGUE & set(path.stem.lower().split("_"))] == []


def test_the_present_comes_from_the_clock_port_only() -> None:
    ambient = re.compile(r"\b(?:datetime|date)\.(?:now|today|utcnow)\(|\btime\.time(?:_ns)?\(")
    found = [path for path in MODULES if ambient.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(REPOSITORY).as_posix() for path in found] in ([], ["adapters/clock.py"])


def test_nothing_of_the_data_folder_ships_but_its_readme() -> None:
    shipped = [path.relative_to(REPOSITORY).as_posix() for path in tracked_files()]
    assert [name for name in shipped if name.startswith("data/")] == ["data/README.md"]


@pytest.mark.parametrize("what", FORBIDDEN_TEXT)
def test_no_file_has(what: str) -> None:
    found: list[str] = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # pictures
            continue
        found += [f"{path.relative_to(REPOSITORY)}: {hit.group()}" for hit in FORBIDDEN_TEXT[what].finditer(text)]
    assert found == []


def test_every_pin_has_a_hash_and_no_address() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    pins = re.split(r"\n(?=[A-Za-z0-9])", lock)[1:]
    assert len(pins) > 100
    assert [pin.split()[0] for pin in pins if not re.match(r"[a-z0-9.\[\],_-]+==\S+", pin) or "--hash=sha256:" not in pin] == []
    assert "://" not in lock
    assert [line for line in lock.splitlines() if re.match(r"-|#.*(?:/|index)", line)] == []


@pytest.mark.parametrize(
    "path",
    [
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("quant/quality/rules", "quant/risk/limits")
        for path in sorted((REPOSITORY / folder).glob("*.py"))
        if path.stem != "__init__"
    ],
)
def test_a_rule_or_limit_stands_alone_in_its_file(path: str) -> None:
    module = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    public: list[str] = []
    for node in module.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        public += [target.id for target in targets if isinstance(target, ast.Name)]
        public += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
    assert len([name for name in public if not name.startswith("_")]) == 1
    room = Path(path).parent.as_posix().replace("/", ".")
    imported = [node.module or "" for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
    assert [name for name in imported if name == room or name.startswith(f"{room}.")] == []


def make_targets() -> set[str]:
    """Targets of the Makefile that a person types."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)[1].split())  # type: ignore[index]


def test_make_help_lists_every_target() -> None:
    told = subprocess.run(["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"make ([a-z-]+)", re.sub(r"\x1b\[[0-9;]*m", "", told))) >= make_targets()
    assert re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE) == sorted(
        make_targets(), key=lambda target: told.index(f"make {target} ")
    )


def test_documents_name_only_targets_that_exist() -> None:
    documents = [path for path in tracked_files() if path.suffix == ".md"]
    named = {
        (path.name, target) for path in documents for target in re.findall(r"`(?:\$ )?make ([a-z-]+)", path.read_text(encoding="utf-8"))
    }
    assert {pair for pair in named if pair[1] not in make_targets()} == set()


def test_the_code_location_has_one_name_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"]["project"]
    (location,) = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    names = (location["python_module"]["module_name"], location["python_module"]["location_name"])
    assert names == (supervisor.MODULE, supervisor.LOCATION)
    assert names == (project["code_location_target_module"], project["code_location_name"])
