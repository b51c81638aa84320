"""Parse the output of an exporter."""

from collections.abc import Mapping
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from taskq_exporter import Exporter

Labels = tuple[tuple[str, str], ...]


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self._now = 100.0

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now


class Scraped:
    """The response to a scrape.

    Attributes:
        kinds: Kind of each family, by its name as `# TYPE` has it.
        samples: Values by name and labels.
    """

    def __init__(self, text: str) -> None:
        self.kinds = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
        self.samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                self.samples.setdefault(each.name, {})[tuple(sorted(each.labels.items()))] = each.value

    def of(self, name: str, **labels: str) -> float:
        """The value of one series."""
        return self.samples[name][tuple(sorted(labels.items()))]

    def by(self, name: str, label: str) -> Mapping[str, float]:
        """The values of a metric, by one label."""
        return {dict(labels)[label]: value for labels, value in self.samples.get(name, {}).items()}


async def scrape(exporter: Exporter, **more: Any) -> Scraped:
    """Scrape once."""
    return Scraped((await exporter.expose(**more)).body.decode())
