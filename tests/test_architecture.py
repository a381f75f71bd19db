"""The package's structure: which folder may import which, what an import costs, what ships with it."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bertrec_utils"
FOLDERS = ["data", "model", "evaluation", "training", "scenarios", "commands"]  # each imports from those left of it
SHARED = {"settings", "common"}  # of the root: all may import them
NOTEBOOKS = {"01_data": 1, "02_model": 2, "03_train": 4, "04_evaluate": 4, "05_scenarios": 5, "solutions": 5}
NOTEBOOKS["06_your_own_log"] = 6
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported(path: Path) -> set[str]:
    """The top folders or root modules of bertrec_utils that a module imports, relative imports resolved."""
    here = ("bertrec_utils", *path.relative_to(PACKAGE).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else ()
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "bertrec_utils" and len(name) > 1}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_those_left_of_it(path):
    parts = path.relative_to(PACKAGE).parts
    if parts == ("__main__.py",):
        return
    if len(parts) == 1:  # the root stands below all folders
        assert imported(path) <= SHARED
    else:
        allowed = SHARED | set(FOLDERS[: FOLDERS.index(parts[0]) + 1])
        assert imported(path) <= allowed | ({"plots"} if parts[0] == "commands" else set())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_imports_from_its_folder_and_those_before(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    used = set(re.findall(r"^(?:from|import) bertrec_utils\.(\w+)", code, re.MULTILINE))
    commands = {"__main__"} if name in ("06_your_own_log", "solutions") else set()
    assert used <= SHARED | {"plots"} | set(FOLDERS[: NOTEBOOKS[name]]) | commands
    assert not re.search(r"^from bertrec_utils import", code, re.MULTILINE)  # says where a name comes from


def test_each_module_is_named_in_the_architecture_with_one_line():
    names = [str(path.relative_to(PACKAGE).with_suffix("")) for path in MODULES]
    table = re.findall(r"^\| `([\w/]+)` \| [^|]+ \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(names)


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_none_of_its_modules():
    assert {name for name in modules_after("import bertrec_utils") if name.startswith("bertrec_utils.")} == set()
    loaded = modules_after("from bertrec_utils import get_preset")
    assert "bertrec_utils.settings" in loaded and "torch" not in loaded


def test_evaluation_needs_no_torch():
    loaded = modules_after("import bertrec_utils.evaluation")
    assert "bertrec_utils.evaluation.ranking" in loaded
    assert not {"torch", "pandas", "sklearn", "pooch", "rapidfuzz", "matplotlib"} & loaded


def test_every_name_that_the_package_offers_is_there():
    import bertrec_utils

    assert all(callable(getattr(bertrec_utils, name)) for name in bertrec_utils.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bertrec_utils.nothing  # noqa: B018


def test_the_types_of_the_package_hold(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
