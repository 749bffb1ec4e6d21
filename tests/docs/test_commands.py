"""Each command of the documentation is one that exists, with the arguments that it takes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache

import certifi
import pytest
from airflow.cli.cli_parser import get_parser
from packaging.requirements import Requirement

from airflow_provider_odirouter.hooks.connection import ConnectionSettings
from airflow_provider_odirouter.lifecycle import by_hand, cleanup
from airflow_provider_odirouter.sandbox import __main__ as sandbox_command
from tests.dags.conftest import airflow_db
from tests.docs.blocks import COMMANDS, ROOT, Block, all_spans, blocks_in

__all__ = ["airflow_db"]

DISTRIBUTIONS = {
    "airflow-provider-odirouter",
    "apache-airflow",
    "apache-airflow-providers-amazon",
    "apache-airflow-providers-google",
    "apache-airflow-providers-hashicorp",
    "apache-airflow-providers-microsoft-azure",
    "apache-airflow-providers-openlineage",
    "pytest",
}
"""What the pages install; each exists on PyPI."""
CONSTRAINTS = r"https://raw\.githubusercontent\.com/apache/airflow/constraints-3\.[123]\.\d+/constraints-3\.1[123]\.txt"
OTHER = {
    "cd",
    "cp",
    "uv",
    "export",
    "git",
    "docker",
    "helm",
    "kubectl",
    "mkdir",
    "python3",
    "source",
    "curl",
    "unset",
    "ls",
    "cat",
    "sudo",
}
"""Programs of others; what they are told is not checked."""


def commands_of(block: Block) -> Iterator[str]:
    """Yield the commands of a block: in ``console``, the lines after a ``$``, since the others are what is printed."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "console":
            if line.startswith("$ "):
                yield line.removeprefix("$ ")
        elif line.strip() and not line.lstrip().startswith("#"):
            yield line


COMMAND_LINES = [
    pytest.param(line, id=f"{block}-{line[:40]}") for block in blocks_in(*COMMANDS) for line in commands_of(block)
]


@pytest.mark.parametrize("block", blocks_in(*COMMANDS), ids=str)
def test_a_block_of_commands_has_one(block: Block) -> None:
    assert list(commands_of(block))


SPANS = [
    pytest.param(span.text, id=f"{span}-{span.text[:40]}")
    for span in all_spans()
    if re.match(r"(\w+=\S* )?(make|odirouter-\w+|pip install|airflow \w+ \w+ \S+) ", f"{span.text} ")
    and "…" not in span.text.partition(" ")[2].partition("=")[0]
]


@pytest.mark.parametrize("line", [*COMMAND_LINES, *SPANS])
def test_a_command_exists_and_takes_these_arguments(line: str) -> None:
    for words in simple_commands(line):
        program, *arguments = words
        program = program.rpartition("/")[2]
        check = PROGRAMS.get(program)
        assert check or program in OTHER, f"no test knows {program}"
        if check:
            check(arguments)


def simple_commands(line: str) -> Iterator[list[str]]:
    """Split a line at pipes and the like; assignments before a command are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            while words and re.match(r"[A-Za-z_]\w*=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
        else:
            words.append(word)


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    parser.allow_abbrev = False
    try:
        return parser.parse_args(arguments)
    except SystemExit as error:
        if error.code == 0:  # --help
            return argparse.Namespace()
        raise AssertionError(f"{parser.prog} does not take {arguments}") from None


@cache
def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_make(arguments: list[str]) -> None:
    makefile = "\n".join(
        [(ROOT / "Makefile").read_text(), *(path.read_text() for path in (ROOT / "dev").rglob("*.py"))]
    )
    makefile += "".join(path.read_text() for path in (ROOT / "tests" / "e2e").glob("*.py"))
    for argument in arguments:
        name, is_variable, _ = argument.partition("=")
        assert re.search(rf"\b{name}\b", makefile) if is_variable else name in targets(), argument


def check_pip(arguments: list[str]) -> None:
    assert arguments[0] in {"install", "download", "wheel"}
    rest = iter(arguments[1:])
    for argument in rest:
        if argument in {"-c", "--constraint"}:
            source = next(rest)
            assert re.fullmatch(CONSTRAINTS, source) or source.endswith(".txt"), source
        elif argument in {"-r", "--requirement", "--editable", "-e"} or argument == "--wheel-dir":
            next(rest)
        elif argument.startswith(("-", ".", "dist/")):
            continue
        else:
            assert Requirement(argument).name in DISTRIBUTIONS, argument


def check_airflow(arguments: list[str]) -> None:
    parse(get_parser(), arguments)


def check_sandbox(arguments: list[str]) -> None:
    parse(sandbox_command._parser(), arguments)


def check_request(arguments: list[str]) -> None:
    parse(by_hand._parser(), arguments)


def check_python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "airflow_provider_odirouter.lifecycle.cleanup"]:
        parse(cleanup._parser(), arguments[2:])
    elif arguments[:2] == ["-m", "pip"]:
        check_pip(arguments[2:])
    elif arguments[0] == "-m":
        assert arguments[1] in {"venv", "pytest"}, arguments
    else:
        assert arguments[0] == "-c"
        compile(arguments[1], "<command>", "exec")


def check_pytest(arguments: list[str]) -> None:
    assert not [argument for argument in arguments if argument.startswith("-") and argument not in {"-q", "-x"}]


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "airflow": check_airflow,
    "make": check_make,
    "odirouter-request": check_request,
    "odirouter-sandbox": check_sandbox,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
}


ADDED = [param for param in COMMAND_LINES if re.match(r"airflow connections add", str(param.values[0]))]


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("line", ADDED)
def test_a_connection_that_is_added_can_be_used(line: str) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    [[_, *arguments]] = simple_commands(line.replace("/etc/ssl/certs/company-ca.pem", certifi.where()))
    parsed = parse(get_parser(), arguments)
    parsed.conn_id += "_of_a_test"
    parsed.func(parsed)
    with create_session() as session:
        connection = session.query(Connection).filter_by(conn_id=parsed.conn_id).one()
        if connection.conn_type == "odirouter":
            assert ConnectionSettings.from_connection(connection).base_url.endswith("/model")
        session.delete(connection)
