"""Figures and pictures on the pages about performance are those of the recorded results."""

import json
import shutil
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from benchmarks import publishing
from benchmarks.results import Results
from tests.docs.pages import ROOT

SCHEMA = json.loads((ROOT / "benchmarks" / "results.schema.json").read_text(encoding="utf-8"))


def test_the_pictures_and_tables_of_the_page_are_those_of_its_results(tmp_path: Path) -> None:
    page, short_page = tmp_path / "performance-figures.md", tmp_path / "performance.md"
    shutil.copy(publishing.PAGE, page)
    shutil.copy(publishing.SUMMARY, short_page)

    drawn = publishing.publish(Results.read(publishing.RESULTS), pictures=tmp_path, page=page, short_page=short_page)

    assert page.read_text(encoding="utf-8") == publishing.PAGE.read_text(encoding="utf-8")
    assert short_page.read_text(encoding="utf-8") == publishing.SUMMARY.read_text(encoding="utf-8")
    assert_same_pictures(tmp_path, publishing.PICTURES, drawn)


def test_the_growth_on_the_page_is_that_of_its_results(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    shutil.copy(publishing.SUMMARY, page)

    drawn = publishing.publish_growth(Results.read(publishing.GROWTH), pictures=tmp_path, page=page)

    assert page.read_text(encoding="utf-8") == publishing.SUMMARY.read_text(encoding="utf-8")
    assert_same_pictures(tmp_path, publishing.PICTURES_OF_GROWTH, drawn)


def test_the_aims_on_the_page_are_those_of_its_results(tmp_path: Path) -> None:
    if not publishing.AIMS.exists():  # none are published
        assert not publishing.PICTURES_OF_OURS.exists()
        return
    page = tmp_path / "performance-figures.md"
    shutil.copy(publishing.PAGE, page)
    peers = Results.read(publishing.RESULTS)

    drawn = publishing.publish_aims(Results.read(publishing.AIMS), peers, pictures=tmp_path, page=page)

    assert page.read_text(encoding="utf-8") == publishing.PAGE.read_text(encoding="utf-8")
    assert_same_pictures(tmp_path, publishing.PICTURES_OF_OURS, drawn)


@pytest.mark.parametrize("file", sorted(publishing.PUBLISHED.glob("*.json")), ids=lambda file: file.stem)
def test_published_results_match_their_schema(file: Path) -> None:
    Draft202012Validator(SCHEMA).validate(json.loads(file.read_text(encoding="utf-8")))


def assert_same_pictures(folder: Path, stored: Path, drawn: list[str]) -> None:
    """Check that the stored pictures are those that were drawn in a folder."""
    assert sorted(path.stem for path in stored.glob("*.svg")) == sorted(drawn)
    for name in drawn:
        assert (folder / f"{name}.svg").read_text() == (stored / f"{name}.svg").read_text(), name
