"""What the editors of the journal would do."""

import datetime

from celery import chain, chord, group

from journal.app import app
from journal.articles import (
    add, add_up, age, check, count, edition, fetch, log, on_written, publish, spell, urgent, write,
)
from journal.print import bind_pages, print_page


def drive():
    article = write.apply_async(args=("Bees",), kwargs={"words": 5})
    results = {
        "write": article.get(timeout=30),
        "count": count.delay("a b c").get(timeout=30),
        "add": add.apply_async([1, 2]).get(timeout=30),
        "fetch": fetch.delay("x").get(timeout=30),
        "check": check.delay("good").get(timeout=30),
        "spell": spell.s("abc").apply_async().get(timeout=30),
        "publish": publish.delay(datetime.datetime(2033, 5, 18, tzinfo=datetime.timezone.utc)).get(timeout=30),
        "age": age.delay(born=datetime.date(2000, 1, 2)).get(timeout=30),
        "print": print_page.delay(1).get(timeout=30),
        "pages": chord((print_page.s(number, paper="A5") for number in (1, 2)), bind_pages.s()).apply_async().get(timeout=30),
        "chain": chain(add.s(1, 1), add.s(5), add.s(7))().get(timeout=30),
        "sum": (group(add.s(1, 1), add.s(2, 2)) | add_up.s()).apply_async().get(timeout=30),
        "urgent": urgent.apply_async(("now",), expires=60, retry=True).get(timeout=30),
    }
    write.apply_async(("Ants",), link=on_written.s("science"))
    log.apply_async(("later",), countdown=1)
    check.delay("bad")
    edition.delay(["one", "two"])
    app.send_task("journal.articles.log", kwargs={"text": "by name"}, countdown=1)
    return results


DONE = {"on_written": 1, "log": 4, "check": 3, "edition": 1, "tick": 1}
