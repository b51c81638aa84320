"""The picture of a run: sound XML, a bar and a name for each fault, one line for what was finished."""

from xml.etree import ElementTree

from tests.soak.made_up import enqueued, event, ran
from tests.soak.profiles import PROFILES
from tests.soak.schedule import plan
from tests.soak.timeline import draw

NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_faults_are_marked_and_named() -> None:
    events = [
        *enqueued(10.0, "a"),
        *ran(11.0, "a"),
        event(12.0, "fault", number=3, seed="s"),
        event(20.0, "fault over", number=3, seed="s"),
        *enqueued(29.0, "b"),
    ]

    root = ElementTree.fromstring(draw(events, plan(PROFILES["ci"], 4), {3: "stopped & continued"}))

    texts = ["".join(each.itertext()) for each in root.iter(f"{NAMESPACE}text")]
    assert "3 stopped & continued" in texts
    assert any("seed 4" in each for each in texts)
    assert len(list(root.iter(f"{NAMESPACE}polyline"))) == 2


def test_overlapping_faults_stand_below_each_other() -> None:
    events = [
        *enqueued(0.0, "a"),
        event(1.0, "fault", number=1, seed="s"),
        event(2.0, "fault", number=3, seed="t"),
        event(3.0, "fault over", number=1, seed="s"),
        event(9.0, "fault over", number=3, seed="t"),
    ]

    root = ElementTree.fromstring(draw(events, plan(PROFILES["ci"], 4), {1: "one", 3: "three"}))

    rows = {each.get("y") for each in root.iter(f"{NAMESPACE}rect") if each.get("rx")}
    assert len(rows) == 2
