"""Who may import whom: Ray and MLflow at the edges, layers point down, light starts stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "lssl_ray").rglob("*.py"))

IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
sys.modules["ray"] = sys.modules["mlflow"] = None
import lssl_ray
count = 0
for module in pkgutil.walk_packages(lssl_ray.__path__, "lssl_ray."):
    if module.name.startswith("lssl_ray.cluster.") or "lssl_ray.tracking.mlflow" in module.name:
        continue
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        count += 1
print(count)
"""
IMPORT_LIGHT = """
import sys
import lssl_ray, lssl_ray.video.decode_child
heavy = {"torch", "ray", "mlflow", "pydantic", "pyarrow", "matplotlib", "open_clip", "decord"}
print(sorted(heavy & set(sys.modules)))
"""


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_without_ray_and_mlflow_all_succeed() -> None:
    assert int(run_python(IMPORT_ALL)) > 50


def test_imports_of_package_and_decode_child_stay_light() -> None:
    assert run_python(IMPORT_LIGHT) == "[]"


def test_imports_of_command_line_do_not_wait_for_torch() -> None:
    code = "import sys, lssl_ray.cli; print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_imports_of_what_carries_clips_on_ray_do_not_wait_for_torch() -> None:
    """The desk and Ray's split coordinator load these before the first batch can come."""
    code = "import sys, lssl_ray.cluster.data, lssl_ray.cluster.desk; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_imports_follow_the_layers_in_pyproject() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed (pip install -e .[dev])")
    done = subprocess.run(
        [tool, "--no-cache"], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def find_forbidden_calls(source: str) -> list[str]:
    """Calls the library must not make: print, pickle, shells, and loaders that can run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {key.arg: ast.unparse(key.value) for key in node.keywords}
            unsafe_torch = called == "torch.load" and keywords.get("weights_only") != "True"
            pickled = re.match(r"(cloud)?pickle\.(?!UnpicklingError$)", called)
            if (
                pickled
                or called in ("print", "eval", "exec", "os.system", "yaml.unsafe_load")
                or unsafe_torch
            ):
                found.append(called)
            if keywords.get("shell") == "True":
                found.append(f"{called}(shell=True)")
        if isinstance(node, ast.ClassDef):
            unpickles = any("Unpickler" in ast.unparse(base) for base in node.bases)
            methods = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
            if unpickles and "find_class" not in methods:
                found.append(f"{node.name}: an Unpickler that names everything")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_makes_no_forbidden_call(path: Path) -> None:
    assert find_forbidden_calls(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "print(1)",
        "pickle.load(f)",
        "pickle.Unpickler(f)",
        "class Reader(pickle.Unpickler):\n    def load(self): ...",
        "torch.load(p)",
        "run(c, shell=True)",
        "torch.load(p, weights_only=False)",
    ],
)
def test_forbidden_calls_are_found(line: str) -> None:
    assert find_forbidden_calls(line)
