"""The files around the code: each says what the code does."""

from __future__ import annotations

import ast
import copy
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops.settings import flags as read_flags
from mlops.settings.serving import AppSettings, PredictSettings, PromoteSettings, ServeSettings
from mlops.settings.setup import (
    GenerateDataSettings,
    InitMlflowSettings,
    TrackingServerSettings,
)
from mlops.settings.study import TrainSettings, TuneSettings

REPOSITORY = Path(__file__).parents[1]
JOBS: dict[str, Any] = {
    "init_mlflow": InitMlflowSettings,
    "generate_data": GenerateDataSettings,
    "train": TrainSettings,
    "tune": TuneSettings,
    "promote": PromoteSettings,
    "serve": ServeSettings,
    "app": AppSettings,
    "predict": PredictSettings,
    "tracking_server": TrackingServerSettings,
}
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for package in ("mlops", "ray_jobs")
    for path in (REPOSITORY / package).rglob("*.py")
    if path.name != "__init__.py"
)


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def entry_points() -> dict[str, Any]:
    from mlflow.projects._project_spec import load_project

    return dict(load_project(str(REPOSITORY))._entry_points)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("init_mlflow", {}),
        ("generate_data", {"n_samples": 1000, "n_features": 20, "n_classes": 2}),
        ("train", {"hidden_dims": "[64, 32]", "lr": 0.001, "batch_size": 32, "epochs": 50}),
        ("tune", {"max_evals": 20}),
        ("serve", {"port": 8000}),
        ("app", {"port": 8000}),
        ("predict", {"input": "data/synthetic.parquet", "alias": "champion"}),
    ],
)
def test_mlproject_entry(name: str, parameters: dict[str, Any]) -> None:
    entry = entry_points()[name]
    defaults = {key: parameter.default for key, parameter in entry.parameters.items()}
    assert defaults.items() >= parameters.items()


def test_every_mlproject_entry_is_a_job_called_with_its_own_settings() -> None:
    for name, entry in entry_points().items():
        # `mlflow run` quotes every value for the shell; quotes around one would undo that.
        assert not re.search(r"""['"]\{""", entry.command)
        assert set(re.findall(r"\{(\w+)\}", entry.command)) == set(entry.parameters)
        values = {key: shlex.quote(str(p.default)) for key, p in entry.parameters.items()}
        python, dash_m, module, *flags = shlex.split(entry.command.format(**values))
        assert (python, dash_m) == ("python", "-m")
        job = module.removeprefix("ray_jobs.")
        assert (REPOSITORY / "ray_jobs" / f"{job}.py").is_file()
        assert name in (job, "main")
        # What MLproject calls the default is the default.
        assert read_flags.load(JOBS[job], flags, name=job) == read_flags.load(
            JOBS[job], [], name=job
        )


@pytest.mark.parametrize("name", JOBS)
def test_one_word_opens_every_door(name: str) -> None:
    assert (REPOSITORY / "ray_jobs" / f"{name}.py").is_file()
    assert (REPOSITORY / "configs" / f"{name}.yaml").is_file()
    assert name in entry_points()
    assert f"-m ray_jobs.{name}" in read("Makefile")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_short_and_opens_with_commands_to_copy(name: str) -> None:
    text = read(f"ray_jobs/{name}.py")
    assert len(text.splitlines()) <= 60
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert f"python -m ray_jobs.{name}" in docstring
    assert f"python -m ray_jobs.{name}" in read(f"configs/{name}.yaml")


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """The commands `python -m ray_jobs.<job> flags` in a text, without trailing remarks."""
    found = re.findall(r"python -m ray_jobs\.(\w+)([^\n`]*)", text)
    return [(job, shlex.split(rest, comments=True)) for job, rest in found]


COPIED = [
    (path.relative_to(REPOSITORY).as_posix(), job, flags)
    for pattern in ("ray_jobs/*.py", "configs/**/*.yaml", "README.md")
    for path in sorted(REPOSITORY.glob(pattern))
    for job, flags in commands_of(path.read_text(encoding="utf-8"))
    if "[--" not in " ".join(flags) and job in JOBS and flags != ["--help"]
]


@pytest.mark.parametrize(
    ("path", "job", "flags"), COPIED, ids=[f"{p} {' '.join(f)}" for p, _, f in COPIED]
)
def test_a_command_shown_is_one_that_works(
    path: str, job: str, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    read_flags.load(JOBS[job], [flag for flag in flags if flag != "..."], name=job)


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z_-]+):(?!=)", read("Makefile"), re.MULTILINE))


def test_makefile_has_the_targets_of_the_design() -> None:
    wanted = {"setup", "tune", "train", "data", "test", "ui", "lint", "bench", "submit"}
    wanted |= {"serve", "app"}
    assert makefile_targets() >= wanted


def test_makefile_targets_are_phony() -> None:
    (line,) = re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert set(line.split()) == makefile_targets()


def test_readme_shows_commands_that_exist() -> None:
    text = read("README.md")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    shown = set(re.findall(r"\bmake ([a-z_]+)", code))
    assert shown >= {"tune", "test"}
    assert shown <= makefile_targets()
    for link in re.findall(r"\]\((?!https?://|#)([^)\s#]+)", text):
        assert (REPOSITORY / link).exists(), f"{link} is linked and not there"


def test_ci_runs_the_tests() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)


def test_mlflow_ui_is_a_script_on_loopback() -> None:
    script = REPOSITORY / "mlflow_ui.sh"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)
    assert "--host 127.0.0.1 --port 5000" in script.read_text(encoding="utf-8")


def test_cluster_yaml_passes_rays_validation() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = yaml.safe_load(read("cluster.yaml"))
    prepared = prepare_config(copy.deepcopy(given))
    validate_config(prepared)
    assert prepared["provider"]["type"] == "local"
    assert len(given["provider"]["worker_ips"]) == given["max_workers"]
    assert "0.0.0.0" not in read("cluster.yaml")


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_clusters_of_clouds_pass_rays_validation(provider: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = yaml.safe_load(read(f"configs/clusters/{provider}.yaml"))
    prepared = prepare_config(copy.deepcopy(given))
    validate_config(prepared)
    assert prepared["provider"]["type"] == provider
    own = yaml.safe_load(read("cluster.yaml"))
    for name in ("file_mounts", "setup_commands", "rsync_exclude", "idle_timeout_minutes"):
        assert given[name] == own[name]
    for node in ("head", "worker"):
        for command in given[f"{node}_start_ray_commands"]:
            assert command.startswith(". ~/mlops/.venv/bin/activate && ")
        assert "RAY_AUTH_MODE=token" in given[f"{node}_start_ray_commands"][-1]
    assert "0.0.0.0" not in str(given)


def test_the_environments_describe_the_same_install() -> None:
    conda = yaml.safe_load(read("conda.yaml"))
    env = yaml.safe_load(read("python_env.yaml"))
    (pip,) = [part["pip"] for part in conda["dependencies"] if isinstance(part, dict)]
    assert pip == env["dependencies"]
    assert f"python={env['python']}" in conda["dependencies"]
    assert yaml.safe_load(read("MLproject"))["python_env"] == "python_env.yaml"


def test_every_dependency_is_pinned_within_its_range() -> None:
    from packaging.requirements import Requirement

    pins: dict[str, list[Requirement]] = {}
    for line in read("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins.setdefault(pin.name.lower().replace("_", "-"), []).append(pin)
    declared = re.findall(r'^    "([A-Za-z][^"]*)",$', read("pyproject.toml"), re.MULTILINE)
    wanted = [r for r in map(parsed, declared) if r is not None]
    assert len(wanted) >= 20
    contradictions = [
        f"{requirement} and {pin}"
        for requirement in wanted
        for pin in pins[requirement.name.lower()]
        if not requirement.specifier.contains(str(pin.specifier).removeprefix("=="))
    ]
    assert contradictions == []


def parsed(text: str) -> Any:
    """A requirement of pyproject.toml, or None for a line that is something else."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(text)
    except InvalidRequirement:
        return None
    known = found.specifier or text in ("types-PyYAML", "pandas-stubs")
    return found if known else None


def test_what_the_architecture_names_exists() -> None:
    text = read("ARCHITECTURE.md")
    assert 1000 <= len(text.split()) <= 1500
    named = set(re.findall(r"`([\w./-]+)`", text))
    tests = {name for name in named if name.startswith("test_")}
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    tree = [f"/{path}" for path in files.stdout.splitlines()]
    code = "\n".join(read(path[1:]) for path in tree if "/test_" in path and path.endswith(".py"))
    assert tests
    for name in tests:
        assert f"def {name}(" in code, name
    for name in (name for name in named - tests if "/" in name or name.endswith(".py")):
        place = f"/{name}" if name.endswith(".py") else f"/{name.rstrip('/')}/"
        assert any(path.endswith(place) or place in path for path in tree), name


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        *(f"docs/{page.name}" for page in sorted((REPOSITORY / "docs").glob("*.md"))),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", read(page))
    gone = [link for link in links if "://" not in link]
    gone = [link for link in gone if not (REPOSITORY / page).parent.joinpath(link).exists()]
    assert gone == []


def test_import_contracts_are_there() -> None:
    text = read("pyproject.toml")
    contracts = text.count("[[tool.importlinter.contracts]]")
    assert contracts >= 4
    layers = re.search(r'type = "layers"\nlayers = \[(.*?)\]', text, re.DOTALL)
    assert layers is not None
    named = re.findall(r"[a-z_.]+", layers.group(1))
    packages = {
        "mlops." + path.parent.name for path in (REPOSITORY / "mlops").glob("*/__init__.py")
    }
    assert packages <= set(named)
    assert "lint-imports" in read("Makefile")


@pytest.mark.parametrize(
    "path",
    [
        path.relative_to(REPOSITORY).as_posix()
        for package in ("mlops", "ray_jobs", "benchmarks")
        for path in sorted((REPOSITORY / package).rglob("__init__.py"))
    ],
)
def test_a_package_is_a_docstring(path: str) -> None:
    body = ast.parse(read(path)).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is(module: str) -> None:
    text = read(module.replace(".", "/") + ".py")
    assert ast.get_docstring(ast.parse(text))
    assert "\nfrom __future__ import annotations\n" in text


IMPORT_ALL = """
import importlib, json, logging, os, signal, sys, threading

# What the libraries themselves do on import is not ours to answer for.
for name in ("ray.tune", "ray.air.integrations.mlflow", "torch", "pandas", "rich.live", "yaml"):
    importlib.import_module(name)

def world():
    return {
        "environment": dict(os.environ),
        "folder": [os.getcwd(), sorted(os.listdir("."))],
        "handlers": [repr(handler) for handler in logging.getLogger().handlers],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "signals": [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "path": list(sys.path),
    }

before = world()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = world()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""


def test_importing_does_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *MODULES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "{}"
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("ray_jobs.tune", ["torch", "mlflow", "ray", "sklearn", "pandas"]),
        ("ray_jobs.train", ["torch", "mlflow", "ray", "sklearn", "pandas"]),
        ("ray_jobs.generate_data", ["torch", "mlflow", "ray", "sklearn", "pandas"]),
        ("ray_jobs.predict", ["torch", "mlflow", "ray", "sklearn", "pandas", "pyarrow"]),
        ("ray_jobs.init_mlflow", ["torch", "mlflow", "ray", "sklearn", "pandas"]),
        ("mlops.configuration.space", ["yaml", "pydantic", "numpy"]),
        ("mlops.nn.tasks.metrics", ["torch", "numpy"]),
        ("mlops.nn.tasks.task", ["torch", "pandas"]),
        ("mlops.tuning.study", ["torch", "mlflow", "ray", "sklearn", "pandas"]),
    ],
)
def test_what_starts_fast_imports_little(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.split() == []


def test_no_secret_and_no_place_of_our_own_is_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, timeout=10, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    private = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY|/home/\w+/|/Users/\w+/")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.is_file() and path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".sh", ""}:
            assert not private.search(path.read_text(encoding="utf-8")), name
