"""Figures and pictures on the pages about performance are those of the recorded results."""

import json
import shutil
from pathlib import Path

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
    Draft202012Validator(SCHEMA).validate(json.loads(publishing.RESULTS.read_text(encoding="utf-8")))
    assert sorted(path.name for path in publishing.PICTURES.glob("*.svg")) == sorted(f"{name}.svg" for name in drawn)
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_text() == (publishing.PICTURES / f"{name}.svg").read_text(), name


def test_the_aims_on_the_page_are_those_of_its_results(tmp_path: Path) -> None:
    if not publishing.AIMS.exists():  # none are published
        assert not publishing.PICTURES_OF_OURS.exists()
        return
    page = tmp_path / "performance-figures.md"
    shutil.copy(publishing.PAGE, page)
    peers = Results.read(publishing.RESULTS)

    drawn = publishing.publish_aims(Results.read(publishing.AIMS), peers, pictures=tmp_path, page=page)

    assert page.read_text(encoding="utf-8") == publishing.PAGE.read_text(encoding="utf-8")
    kept = publishing.PICTURES_OF_OURS
    assert sorted(path.name for path in kept.glob("*.svg")) == sorted(f"{name}.svg" for name in drawn)
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_text() == (kept / f"{name}.svg").read_text(), name
