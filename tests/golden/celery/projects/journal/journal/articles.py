import datetime

from celery import group

from journal.app import app
from journal.record import record


@app.task
def write(title: str, words: int = 100) -> dict:
    record("write", title, words)
    return {"title": title, "words": words}


@app.task
def count(text):
    return len(text.split())


@app.task
def add(left, right):
    return left + right


@app.task
def add_up(numbers):
    return sum(numbers)


@app.task(bind=True, autoretry_for=(Exception,), retry_backoff=True, retry_backoff_max=1, retry_jitter=False)
def fetch(self, address):
    record("fetch", address, self.request.retries)
    if self.request.retries < 1:
        raise ConnectionError(address)
    return address.upper()


@app.task(bind=True, max_retries=1)
def check(self, text):
    record("check", text)
    if text == "bad":
        self.retry(countdown=1)
    return True


@app.task(name="spell")
def spell(text):
    return text[::-1]


@app.task
def publish(when, title="news"):
    record("publish", when.isoformat(), title)
    return when.year


@app.task
def tick(name):
    record("tick", name)


@app.task
def clean_up(days):
    record("clean_up", days)


@app.task
def on_written(article, desk):
    record("on_written", article["title"], desk)


@app.task(ignore_result=True)
def log(text):
    record("log", text)


@app.task
def edition(titles):
    record("edition", sorted(titles))
    group(log.s(title) for title in titles).apply_async()


@app.task
def age(born: "datetime.date | None" = None):
    return None if born is None else born.day


@app.task(expires=300)
def urgent(text):
    record("urgent", text)
    return text
