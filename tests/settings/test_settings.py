"""Settings: where they come from, what wins, what is refused and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from pydantic import BaseModel

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.errors import SettingsError
from mlops.settings import flags as read_flags
from mlops.settings.sections import GONE, ResourceSettings, Section, SyntheticSettings
from mlops.settings.serving import PredictSettings
from mlops.settings.setup import GenerateDataSettings, InitMlflowSettings
from mlops.settings.study import TrainSettings, TuneSettings

REPOSITORY = Path(__file__).parents[2]
JOBS: dict[str, Any] = {
    "init_mlflow": InitMlflowSettings,
    "generate_data": GenerateDataSettings,
    "train": TrainSettings,
    "tune": TuneSettings,
    "predict": PredictSettings,
}
EXAMPLES = sorted((REPOSITORY / "configs" / "examples").glob("*.yaml"))


def load(name: str, *argv: str, text: str | None = None) -> Any:
    """Loads a job's settings from flags, and from a file that says `text` if that is given."""
    if text is not None:
        Path("given.yaml").write_text(text, encoding="utf-8")
        argv = ("--config", "given.yaml", *argv)
    return read_flags.load(JOBS[name], argv, name=name)


def problems_of(name: str, *argv: str, text: str | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(name, *argv, text=text)
    assert caught.value.exit_code == 2
    return caught.value.problems


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every setting of a model by its dotted name."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= leaves(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


@pytest.mark.parametrize("name", JOBS)
def test_the_defaults_are_those_of_the_jobs_file(name: str) -> None:
    assert load(name) == load(name, text="")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_with_no_flags_reads_its_own_file_from_any_folder(name: str) -> None:
    written = yaml.safe_load((REPOSITORY / "configs" / f"{name}.yaml").read_text())
    dumped = load(name).model_dump()
    for key, value in written.items():
        below = dumped[key]
        assert below == value or below.items() >= value.items()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads(path: Path) -> None:
    given = read_flags.load(TuneSettings, ["--config", str(path)], name="tune")
    assert given.search_space.paths()
    assert given.max_evals > 1


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"seed", "conditional"}


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("", [], 20),
        ("max_evals: 30", [], 30),
        ("", ["--max_evals", "40"], 40),
        ("max_evals: 30", ["--max_evals", "40"], 40),
        ("max_evals: 30", ["--max_evals=40"], 40),
        ("max_evals: 30", ["--max_evals", "40", "--max_evals", "50"], 50),
        ("epochs: 3", ["--epochs", "4"], 20),
    ],
)
def test_a_flag_wins_over_the_file_and_the_file_over_the_default(
    text: str, flags: list[str], expected: int
) -> None:
    assert load("tune", *flags, text=text).max_evals == expected


def test_sections_merge_setting_by_setting() -> None:
    text = "data: {synthetic: {n_samples: 5, n_classes: 3}}\nresources: {workers: 2}"
    flags = ["--data.synthetic.n_classes", "4", "--resources.cpus_per_worker", "0.5"]
    given = load("tune", *flags, text=text)
    assert given.data.synthetic == SyntheticSettings(n_samples=5, n_classes=4)
    assert given.resources == ResourceSettings(workers=2, cpus_per_worker=0.5)


def test_defaults_merge_but_a_space_is_taken_whole() -> None:
    text = "space: {dropout: {uniform: [0.1, 0.2]}}\ndefaults: {dropout: 0.15}"
    space = '{"batch_size": {"choice": [32, 64]}}'
    given = load("tune", "--space", space, "--defaults", '{"epochs": 3}', text=text)
    assert given.space == {"batch_size": {"choice": [32, 64]}}
    assert given.defaults == {"dropout": 0.15, "epochs": 3}


@pytest.mark.parametrize("flag", ["--lr", "--learning_rate"])
@pytest.mark.parametrize("text", [None, "", "learning_rate: 0.5", "lr: 0.5"])
def test_lr_is_another_name_of_learning_rate(flag: str, text: str | None) -> None:
    given = load("train", flag, "0.003", text=text)
    assert given.learning_rate == given.hyperparameters.learning_rate == 0.003
    assert "learning_rate" in given.model_dump()
    assert "lr" not in given.model_dump()


@pytest.mark.parametrize("key", ["lr", "learning_rate"])
def test_the_file_may_use_either_name(key: str) -> None:
    assert load("train", text=f"{key}: 1e-3").learning_rate == 0.001


@pytest.mark.parametrize(
    ("flags", "setting", "expected"),
    [
        (["--hidden_dims", "[64, 32]"], "hidden_dims", [64, 32]),
        (["--hidden_dims", "[64,32]"], "hidden_dims", [64, 32]),
        (["--hidden_dims", "64,32"], "hidden_dims", [64, 32]),
        (["--hidden_dims", "64"], "hidden_dims", [64]),
        (["--batch_size", "8"], "batch_size", 8),
        (["--dropout", "0"], "dropout", 0.0),
        (["--weight_decay", "1e-5"], "weight_decay", 1e-5),
        (["--activation", "gelu"], "activation", "gelu"),
        (["--metric", "val_loss"], "metric", "val_loss"),
        (["--study", "7"], "study", "7"),
        (["--resources.workers", "auto"], "resources.workers", "auto"),
        (["--resources.workers", "3"], "resources.workers", 3),
        (["--resources.gpus_per_worker", "0.25"], "resources.gpus_per_worker", 0.25),
        (["--resources.gpus_per_worker", "auto"], "resources.gpus_per_worker", "auto"),
        (["--data.path", "a b.csv", "--data.target", "the class"], "data.target", "the class"),
        (["--data.sklearn", "digits"], "data.sklearn", "digits"),
        (["--data.openml", "1590"], "data.openml", 1590),
        (["--data.synthetic.class_balance", "[0.9, 0.1]"], "data.synthetic.class_balance", None),
    ],
)
def test_a_flag(flags: list[str], setting: str, expected: Any) -> None:
    value: Any = load("train", *flags)
    for part in setting.split("."):
        value = getattr(value, part)
    assert value == ([0.9, 0.1] if expected is None else expected)


@pytest.mark.parametrize(("given", "expected"), [("auto", "auto"), ("1", 1), ("8", 8)])
def test_pack_size_is_a_number_or_auto(given: str, expected: int | str) -> None:
    assert load("tune", "--pack_size", given).pack_size == expected
    assert load("tune", text=f"pack_size: {given}").pack_size == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs: 7", Hyperparameters(epochs=7)),
        ("epochs: 7\ndefaults: {epochs: 3}", Hyperparameters(epochs=3)),
        (
            "defaults: {hidden_dims: [16], activation: gelu, learning_rate: 1e-2}",
            Hyperparameters(hidden_dims=(16,), activation="gelu", learning_rate=0.01),
        ),
    ],
)
def test_trial_0(text: str, expected: Hyperparameters) -> None:
    assert load("tune", text=text).default_configuration == expected


def test_the_space_of_the_default_study_holds_its_default_configuration() -> None:
    given = load("tune")
    assert given.search_space == SearchSpace.parse(given.space)
    assert given.search_space.locate(given.default_configuration.to_dict()) is not None


def test_settings_are_frozen() -> None:
    given = load("train")
    for target, name in ((given, "epochs"), (given.data, "path"), (given.data.synthetic, "seed")):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            setattr(target, name, 3)


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load("tune")
    for name in ("MAX_EVALS", "max_evals", "SEED", "STUDY", "DATA", "EPOCHS", "TRACKING__URI"):
        monkeypatch.setenv(name, "77")
    Path(".env").write_text("MAX_EVALS=77\n", encoding="utf-8")
    assert load("tune") == before


# One problem each: the job, the file, the flags, and the line that says so.
PROBLEMS: dict[str, tuple[str, str | None, list[str], str]] = {
    "unknown key": (
        "tune",
        "max_eval: 3",
        [],
        "max_eval: no such setting; did you mean max_evals?",
    ),
    "unknown key, nothing near": (
        "tune",
        "zebra: 3",
        [],
        "zebra: no such setting; --help lists every setting",
    ),
    "unknown key of a section": (
        "train",
        "data: {pth: a}",
        [],
        "data.pth: no such setting; did you mean path?",
    ),
    "unknown key two sections down": (
        "train",
        "data: {synthetic: {n_sample: 3}}",
        [],
        "data.synthetic.n_sample: no such setting; did you mean n_samples?",
    ),
    "setting of another job": (
        "train",
        "max_evals: 3",
        [],
        "max_evals: no such setting; --help lists every setting",
    ),
    "unknown flag": (
        "tune",
        None,
        ["--max_eval", "3"],
        "--max_eval: no such setting; did you mean --max_evals?",
    ),
    "flag with a dash": (
        "tune",
        None,
        ["--max-evals=3"],
        "--max-evals: no such setting; did you mean --max_evals?",
    ),
    "flag without its section": (
        "tune",
        None,
        ["--path", "a.csv"],
        "--path: no such setting; did you mean --data.path?",
    ),
    "no flag": (
        "tune",
        None,
        ["table.csv"],
        "table.csv: flags must start with --, got 'table.csv'",
    ),
    "flag without a value": (
        "tune",
        None,
        ["--max_evals"],
        "argument --max_evals: expected one argument; --help lists every setting",
    ),
    "text for a number": (
        "tune",
        None,
        ["--max_evals", "many"],
        "max_evals: must be a valid integer, got 'many'",
    ),
    "no trials": ("tune", "max_evals: 0", [], "max_evals: must be greater than 0, got 0"),
    "fraction of a trial": (
        "tune",
        "max_evals: 2.5",
        [],
        "max_evals: must be a valid integer, got a number with a fractional part, got 2.5",
    ),
    "union, wrong number": (
        "tune",
        "pack_size: 0",
        [],
        "pack_size: must be greater than 0 or 'auto', got 0",
    ),
    "union, wrong word": (
        "tune",
        "pack_size: all",
        [],
        "pack_size: must be a valid integer or 'auto', got 'all'",
    ),
    "union of a section": (
        "tune",
        "resources: {gpus_per_worker: -1}",
        [],
        "resources.gpus_per_worker: must be greater than or equal to 0 or 'auto', got -1",
    ),
    "unknown word": (
        "tune",
        "search: {algorithm: tpe}",
        [],
        "search.algorithm: must be 'hyperopt', 'optuna' or 'random', got 'tpe'",
    ),
    "eta": (
        "tune",
        "pruning: {eta: 1}",
        [],
        "pruning.eta: must be greater than or equal to 2, got 1",
    ),
    "hyperparameter": (
        "train",
        "dropout: 1",
        [],
        "dropout: must be a number from 0 to below 1, got 1.0",
    ),
    "hyperparameter by its other name": (
        "train",
        None,
        ["--lr", "-1"],
        "lr: must be a number above 0 and at most 10, got -1.0",
    ),
    "not a number": (
        "train",
        "learning_rate: .nan",
        [],
        "learning_rate: must be a finite number, got nan",
    ),
    "no widths": (
        "train",
        None,
        ["--hidden_dims", "[]"],
        "hidden_dims: must be a list of 1 to 8 widths from 1 to 8192, got []",
    ),
    "width that is text": (
        "train",
        None,
        ["--hidden_dims", "[64, wide]"],
        "hidden_dims.1: must be a valid integer, got 'wide'",
    ),
    "unknown activation": (
        "train",
        "activation: swish",
        [],
        "activation: must be one of relu, gelu, silu, tanh, got 'swish'",
    ),
    "two sources": (
        "train",
        "data: {path: a.csv, target: y, sklearn: wine}",
        [],
        "data: must name one source, got path and sklearn; leave all but one out",
    ),
    "no target": (
        "tune",
        None,
        ["--data.path", "a.csv"],
        "data: must name the column to predict, got none; add --data.target COLUMN",
    ),
    "model name that MLflow refuses": (
        "tune",
        None,
        ["--tracking.model_name", "a/b"],
        "tracking.model_name: must not be empty or have / or : in it, got 'a/b'; choose another "
        "name",
    ),
    "no experiment": (
        "init_mlflow",
        None,
        ["--tracking.experiment", ""],
        "tracking.experiment: must not be empty, got ''; choose another name",
    ),
    "target alone": (
        "tune",
        None,
        ["--data.target", "label"],
        "data: target must come with a table, got 'label' alone; add --data.path FILE",
    ),
    "test table alone": (
        "tune",
        "data: {test_path: b.csv}",
        [],
        "data: test_path must come with a training table, got no path; add --data.path FILE",
    ),
    "section that is no mapping": (
        "tune",
        "data: table.csv",
        [],
        "data: must be a valid dictionary or instance of DataSettings, got 'table.csv'",
    ),
    "space": (
        "tune",
        "space: {dropout: {uniform: [0.5, 0.1]}}",
        [],
        "space.dropout.uniform: low must be below high; swap the two or use a constant, "
        "got [0.5, 0.1]",
    ),
    "space by flag": (
        "tune",
        None,
        ["--space", '{"dropout": {"uniform": [0.5, 0.1]}}'],
        "space.dropout.uniform: low must be below high; swap the two or use a constant, "
        "got [0.5, 0.1]",
    ),
    "defaults": (
        "tune",
        "defaults: {dropout: 2}",
        [],
        "defaults.dropout: must be a number from 0 to below 1, got 2",
    ),
    "a list for a file": (
        "tune",
        "- max_evals",
        [],
        "--config: must be a mapping of settings, got ['max_evals'] in given.yaml",
    ),
}


@pytest.mark.parametrize(("name", "text", "flags", "line"), PROBLEMS.values(), ids=PROBLEMS)
def test_problem(name: str, text: str | None, flags: list[str], line: str) -> None:
    assert problems_of(name, *flags, text=text) == [line]


@pytest.mark.parametrize(
    ("name", "text", "flags", "named"),
    [
        ("train", None, ["--hidden_dims", "[64,"], "hidden_dims"),
        ("tune", None, ["--space", "{dropout"], "space"),
        ("tune", None, ["--data", "{path"], "data"),
        ("tune", None, ["--tracking", "here"], "tracking"),
        ("tune", "space: [", [], "--config"),
        ("tune", "a: b: c", [], "--config"),
        ("tune", "epochs: 3\nepochs: !!python/object:os.system {}", [], "--config"),
        ("tune", "1: 2", [], "1"),
        ("tune", "null: 2", [], "None"),
        ("tune", "defaults: {momentum: 1}", [], "defaults.momentum"),
        ("tune", "epochs: 1000000", [], "epochs"),
        ("tune", None, ["--seed", "4294967296"], "seed"),  # more than NumPy's generators take
        ("tune", None, ["--data.split_seed", "-1"], "data.split_seed"),
        ("tune", None, ["--data.test_fraction", "0"], "data.test_fraction"),
        ("train", "data: {validation_fraction: 1}", [], "data.validation_fraction"),
        ("train", "batch_size: true", [], "batch_size"),
    ],
)
def test_unreadable_settings_are_one_line_that_names_them(
    name: str, text: str | None, flags: list[str], named: str
) -> None:
    (problem,) = problems_of(name, *flags, text=text)
    assert problem.startswith(f"{named}: must be ")
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--data.group", "a", "--data.time", "b"], "group and time must not both be given"),
        (
            ["--data.test_fraction", "0.9", "--data.validation_fraction", "0.1"],
            "must leave rows to train on, got a sum of 1; keep it below 1",
        ),
    ],
)
def test_settings_of_the_split_that_do_not_go_together(flags: list[str], says: str) -> None:
    (problem,) = problems_of("tune", *flags)
    assert problem.startswith("data: ")
    assert says in problem


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_a_missing_file(path: str) -> None:
    (problem,) = problems_of("tune", "--config", path)
    assert problem.startswith(f"--config: must be a readable file, got {path}: ")


def test_a_file_that_is_no_text() -> None:
    Path("picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    (problem,) = problems_of("tune", "--config", "picture.yaml")
    assert problem.startswith("--config: must be YAML, got picture.yaml: ")


def test_all_problems_are_reported_at_once() -> None:
    text = """
        max_evals: many
        epochs: 0
        spce: {}
        data: {sklearn: mnist, synthetic: {rows: 3}}
        space: {dropout: {uniform: [0.5, 0.1]}, momentum: 0.9}
        defaults: {bar: 1}
        """
    flags = ["--nope", "1", "--pack_size", "0", "--search.algorithm", "tpe"]
    where = sorted(problem.split(": ")[0] for problem in problems_of("tune", *flags, text=text))
    assert where == sorted(
        [
            "--nope",
            "data.sklearn",
            "data.synthetic.rows",
            "defaults.bar",
            "epochs",
            "max_evals",
            "pack_size",
            "search.algorithm",
            "space.dropout.uniform",
            "space.momentum",
            "spce",
        ]
    )


def test_a_missing_file_does_not_hide_what_is_wrong_with_the_flags() -> None:
    problems = problems_of("tune", "--config", "nowhere.yaml", "--nope", "1", "--epochs", "0")
    assert [problem.split(": ")[0] for problem in problems] == ["--nope", "--config", "epochs"]


@pytest.mark.parametrize("name", JOBS)
def test_help_lists_every_setting_with_its_default_and_meaning(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as caught:
        load(name, "--help")
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for setting, field in leaves(JOBS[name]).items():
        flag = f"--{setting}"
        listed = [i for i, line in enumerate(lines) if flag in line.replace(",", " ").split()]
        assert listed, f"{flag} is not listed"
        text = " ".join(" ".join(lines[listed[-1] : listed[-1] + 2]).split())
        assert field.description, f"{flag} has no meaning"
        assert " ".join(field.description.split()) in text
        assert (f"(default: {field.default})" in text) == (field.default is not None)
    assert any(f"configs/{name}.yaml" in line for line in lines)


def test_help_comes_before_any_complaint(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load("tune", "--config", "nowhere.yaml", "--help")
    assert "--max_evals" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "3", "auto"])
@pytest.mark.parametrize("name", ["train", "tune"])
@pytest.mark.parametrize("setting", GONE)
def test_a_setting_that_is_gone_is_refused_wherever_it_is_given(
    setting: str, name: str, value: str
) -> None:
    section, _, key = setting.rpartition(".")
    text = f"{section}: {{{key}: {value}}}"
    by_flag, by_flag_and_sign, by_file = (
        problems_of(name, f"--{setting}", value),
        problems_of(name, f"--{setting}={value}"),
        problems_of(name, text=text),
    )
    assert by_flag == by_flag_and_sign == [f"--{problem}" for problem in by_file]
    [problem] = by_file
    assert re.fullmatch(rf"{setting}: is gone since [\d.]+, .*; leave it out.*", problem)


@pytest.mark.parametrize(
    ("address", "of_study", "of_table"),
    [
        ("auto", True, True),
        ("head:6379", True, True),
        ("192.0.2.10:6379", True, True),
        ("http://head:8265", True, False),
        ("https://head/", True, False),
        ("head", False, False),
        ("ray://head:10001", True, False),
        ("ray://head", False, False),
        ("http://me:secret@head", False, False),
    ],
)
def test_addresses(address: str, of_study: bool, of_table: bool) -> None:
    for name, taken in (("tune", of_study), ("train", of_study), ("predict", of_table)):
        if taken:
            assert load(name, "--address", address).address == address
        else:
            with pytest.raises(
                SettingsError, match=r"address: must be auto(, | or )HOST:PORT.*, got"
            ):
                load(name, "--address", address)


def sections(of: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """All settings models that are defined."""
    for section in of.__subclasses__():
        yield section
        yield from sections(section)


NUMBERS = [
    (section, name, kind)
    for section in sorted(set(sections(Section)), key=lambda section: section.__name__)
    for name, field in section.model_fields.items()
    for kind in (float, list)
    if "float" in str(field.annotation) and (kind is float or "list" in str(field.annotation))
]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("section", "name", "kind"), NUMBERS, ids=[f"{s.__name__}.{n}" for s, n, _ in NUMBERS]
)
def test_no_number_is_infinite_or_none_at_all(
    section: type[BaseModel], name: str, kind: type, number: str
) -> None:
    """Whatever is read must be refused where it is read, not by Ray or MLflow later."""
    given = float(number) if kind is float else [0.5, float(number)]
    with pytest.raises(pydantic.ValidationError) as caught:
        section.model_validate({name: given})
    assert any(error["loc"][0] == name for error in caught.value.errors())


def test_an_infinite_number_is_told_as_others_are() -> None:
    flags = ["--resources.cpus_per_worker", "inf", "--target", "nan", "--time_budget", "1e999"]
    with pytest.raises(SettingsError) as caught:
        load("tune", *flags)
    assert sorted(caught.value.problems) == [
        "resources.cpus_per_worker: must be a finite number, got 'inf'",
        "target: must be a finite number, got 'nan'",
        "time_budget: must be a finite number, got '1e999'",
    ]
