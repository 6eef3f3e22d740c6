"""Reads a job's settings from its YAML file and its flags; every problem at once."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource
from pydantic_settings import SettingsError as UnreadableSetting

from mlops.errors import SettingsError
from mlops.settings.sections import GONE

Job = TypeVar("Job", bound=BaseModel)


def load(
    job: type[Job],
    argv: Sequence[str],
    *,
    name: str,
    description: str = "",
    recorded: Callable[[Job], Mapping[str, Any]] | None = None,
) -> Job:
    """Reads a job's settings: defaults, then its YAML file, then flags.

    Args:
        job: The settings model.
        argv: Flags, without the program's name.
        name: The job's name; `configs/<name>.yaml` is read where `--config` names no file.
        description: What `--help` says first.
        recorded: Finds, by these settings, those of the study that `--resume` goes on with; they
            take the place of the defaults.

    Raises:
        SettingsError: With every problem of the file and the flags, a line each.
        SystemExit: After `--help`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m ray_jobs.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file (default: configs/{name}.yaml)"
    )
    flags, unknown, file = _read_flags(job, argv, parser)
    problems = _unknown_flags(unknown, parser)
    default = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    if file is not None:
        values = _read_yaml(file, problems)
    else:
        values = _read_yaml(default, problems) if default.exists() else {}
    settings = _validated(job, _merged(values, flags), problems)
    if recorded is not None and getattr(settings, "resume", False):
        given = flags if file is None else _merged(values, flags)
        settings = _validated(job, _merged(recorded(settings), given), [])
    return settings


def _read_flags(
    job: type[BaseModel], argv: Sequence[str], parser: argparse.ArgumentParser
) -> tuple[dict[str, Any], list[str], Path | None]:
    """Returns the settings that flags give, the tokens that are no flags, and `--config`."""
    unknown: list[str] = []
    file: Path | None = None

    def parse(parser: argparse.ArgumentParser, args: Any, namespace: Any = None) -> Any:
        nonlocal file
        for action in parser._actions:
            action.help = (action.help or "").replace(" (default: None)", "")
        known, rest = parser.parse_known_args(args, namespace)
        unknown.extend(rest)
        if known.config is not None:
            file = Path(known.config)
        del known.config
        return known

    def fail(message: str) -> None:
        raise SettingsError(f"{message}; --help lists every setting")

    parser.error = fail  # type: ignore[method-assign, assignment]
    model: Any = job  # any pydantic model will do, though the annotation wants BaseSettings
    try:
        flags: dict[str, Any] = CliSettingsSource(
            model,
            cli_parse_args=_spelt_out(argv, job),
            cli_avoid_json=True,
            cli_hide_none_type=True,
            root_parser=parser,
            parse_args_method=parse,
        )()
    except UnreadableSetting as error:
        raise SettingsError(_unreadable(error)) from error
    return flags, unknown, file


def again(name: str, argv: Sequence[str], *, study: str) -> str:
    """Returns the command that goes on with a study."""
    flags = [*argv] if "--study" in argv else [*argv, "--study", study]
    resume = [] if "--resume" in argv else ["--resume"]
    return shlex.join(["python", "-m", f"ray_jobs.{name}", *flags, *resume])


def _validated(job: type[Job], values: Mapping[str, Any], problems: list[str]) -> Job:
    try:
        settings = job.model_validate(values)
    except ValidationError as error:
        problems = problems + _problems(error, job)
    if problems:
        raise SettingsError(problems)
    return settings


def _spelt_out(argv: Sequence[str], job: type[BaseModel]) -> list[str]:
    """Gives a switch without a value the value true; in its name a dash is as good as a `_`."""
    switches = {name for name, field in job.model_fields.items() if field.annotation is bool}
    spelt = []
    for token, following in zip_longest(argv, argv[1:], fillvalue="--"):
        flag, equals, value = token.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        switch = flag.startswith("--") and name in switches
        spelt.append(f"--{name}{equals}{value}" if switch else token)
        if switch and not equals and following.startswith("--"):
            spelt.append("true")
    return spelt


def _unknown_flags(tokens: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    known = [option for action in parser._actions for option in action.option_strings]
    flags = [token.split("=")[0] for token in tokens if token.startswith("--")]
    if tokens and not flags:
        return [f"{tokens[0]}: flags must start with --, got {tokens[0]!r}"]
    return [_no_such(flag.removeprefix("--"), flag, known) for flag in flags]


def _unreadable(error: UnreadableSetting) -> str:
    """Says which flag's list or mapping could not be read."""
    text = " ".join(str(error).split())
    found = re.search(r'for (?:field ")?([\w.]+)', text)
    return f"{found.group(1) if found else 'a flag'}: must be readable as JSON, got {text}"


def _no_such(setting: str, name: str, known: Sequence[str]) -> str:
    """Refuses what is no setting, or no more.

    Args:
        setting: Its dotted name.
        name: What was given for a name.
        known: What might have been.
    """
    told = f"--{setting}" if name.startswith("--") else setting
    if setting in GONE:
        return f"{told}: {GONE[setting]}"
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else "--help lists every setting"
    return f"{told}: no such setting; {remedy}"


def _read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"--config: must be a readable file, got {path}: {error.strerror}")
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"--config: must be YAML, got {path}: {' '.join(str(error).split())}")
        return {}
    if values is not None and not isinstance(values, dict):
        problems.append(f"--config: must be a mapping of settings, got {values!r} in {path}")
        return {}
    # A section whose entries are all commented out is as good as absent.
    return {key: value for key, value in (values or {}).items() if value is not None}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays flags over a file: section by section, except the space, which is taken whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping) and key != "space":
            value = _merged(below, value)
        merged[key] = value
    return merged


def _problems(error: ValidationError, job: type[BaseModel]) -> list[str]:
    """Turns pydantic's errors into lines of ours: path, rule, value, remedy."""
    problems: list[str] = []
    rules: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        # In a union pydantic adds the branch it tried to the path; keep what the user wrote.
        path = [str(part) for part in detail["loc"] if str(part) not in _UNION_BRANCHES]
        path = [part for part in path if not part.startswith(("literal[", "constrained-"))]
        where = ".".join(path)
        if isinstance(cause, SettingsError):
            problems += cause.problems
        elif detail["type"] == "extra_forbidden":
            section: Any = job
            for part in path[:-1]:
                section = section.model_fields[part].annotation
            known = list(section.model_fields)
            problems.append(_no_such(where, path[-1], known))
        elif isinstance(cause, ValueError):
            problems.append(f"{where}: {cause}")
        else:
            rule = detail["msg"].replace("Input should be ", "")
            rules.setdefault(where, []).append(rule.split(", unable to")[0])
            given[where] = detail["input"]
    return problems + [
        f"{where}: must be {' or '.join(alternatives)}, got {given[where]!r}"
        for where, alternatives in rules.items()
    ]


_UNION_BRANCHES = ("int", "float", "function-after", "function-before")
