"""What is built and published: the wheel, the sdist, and PyPI's page."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from email import message_from_string
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from readme_renderer import markdown

from airflow_provider_odirouter import __version__
from airflow_provider_odirouter.storage.store_errors import EXTRAS

ROOT = Path(__file__).parents[1]
PACKAGE = "airflow_provider_odirouter"
NAME = f"{PACKAGE}-{__version__}"
REPOSITORY = "airflow-provider-odirouter/airflow-provider-odirouter"
OF_THE_VERSION = (
    f"https://raw.githubusercontent.com/{REPOSITORY}/v{__version__}/",
    f"https://github.com/{REPOSITORY}/blob/v{__version__}/",
)


def build(source: Path, folder: Path, *targets: str) -> None:
    """Build with what is installed here: no network."""
    chosen = [part for target in targets for part in ("-t", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", folder, *chosen], cwd=source, check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the sdist of this repository."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist", "wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> dict[str, bytes]:
    """The files of the wheel."""
    return read_wheel(dist)


@pytest.fixture(scope="module")
def page(metadata: Message) -> str:
    """The HTML of PyPI's page."""
    html = markdown.render(str(metadata.get_payload()))
    assert html
    return html


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    """The core metadata, of which the README is the body."""
    return message_from_string(wheel[f"{NAME}.dist-info/METADATA"].decode())


def read_wheel(folder: Path) -> dict[str, bytes]:
    [path] = folder.glob("*.whl")
    with ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tracked(*folders: str) -> set[str]:
    """The files that a clone has, in the folders or of the names."""
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(listed.stdout.split())


class Links(HTMLParser):
    """Collects what a page links to and shows, and the sections that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sections: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "srcset"}]
        self.sections |= {f"#{value}" for name, value in attrs if name == "id"}


def test_the_wheel_has_the_package_and_the_examples_where_airflow_looks_for_them(wheel: dict[str, bytes]) -> None:
    examples = {f"{PACKAGE}/{file}" for file in tracked("example_dags")}
    assert len(examples) >= 6
    assert {name for name in wheel if ".dist-info/" not in name} == tracked(PACKAGE) | examples


def test_the_sdist_has_what_builds_the_wheel_and_what_the_readme_shows(dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    files_of_the_root = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore"}
    assert files == tracked(PACKAGE, "example_dags", "docs") | files_of_the_root | {"PKG-INFO"}
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert set(pictures) <= files


def test_the_sdist_builds_the_same_wheel(dist: Path, wheel: dict[str, bytes], tmp_path: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / NAME, tmp_path / "dist", "wheel")
    assert read_wheel(tmp_path / "dist") == wheel


def test_the_page_on_pypi_has_no_relative_link(page: str) -> None:
    found = Links(page)
    assert len(found.links) > 10
    elsewhere = set(found.links) - found.sections
    assert [link for link in elsewhere if not link.startswith(("https://", "mailto:"))] == []


def test_the_page_on_pypi_links_to_files_that_this_version_has(page: str) -> None:
    paths = [
        link.removeprefix(start).partition("#")[0]
        for link in Links(page).links
        for start in OF_THE_VERSION
        if link.startswith(start)
    ]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_page_on_pypi_shows_the_pictures_themselves(page: str) -> None:
    pictures = re.findall(r'<img[^>]* src="([^"]+)"', page)
    assert pictures
    assert [picture for picture in pictures if not picture.startswith("https://raw.githubusercontent.com/")] == []


def test_the_page_on_pypi_changes_no_line_of_code(metadata: Message) -> None:
    def code_of(text: str) -> list[str]:
        return re.findall(r"```.*?```", text, re.DOTALL)

    assert code_of(str(metadata.get_payload())) == code_of((ROOT / "README.md").read_text())


def test_each_extra_that_an_error_names_exists(metadata: Message) -> None:
    assert set(EXTRAS.values()) < set(metadata.get_all("Provides-Extra", []))


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("s3", "apache-airflow-providers-amazon[s3fs]"),
        ("gcs", "apache-airflow-providers-google"),
        ("azure", "apache-airflow-providers-microsoft-azure"),
        ("openlineage", "apache-airflow-providers-openlineage"),
    ],
)
def test_an_extra_brings_airflows_provider(extra: str, package: str, metadata: Message) -> None:
    required = [line for line in metadata.get_all("Requires-Dist", []) if f"extra == '{extra}'" in line]
    [line] = required
    assert line.startswith(f"{package}>=")


def test_the_lowest_versions_that_are_promised_are_those_that_are_tested() -> None:
    """By ``make test AIRFLOW=lowest``. Google's and Microsoft's stores are in no test."""
    pinned = dict(
        line.split("==")
        for line in (ROOT / "dev/constraints/airflow-lowest.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    promised = [Requirement(line) for line in (*project["dependencies"], *extras["s3"], *extras["openlineage"])]
    assert len(promised) >= 10
    for requirement in promised:
        assert Version(pinned[requirement.name]) == Version(str(requirement.specifier).removeprefix(">="))
