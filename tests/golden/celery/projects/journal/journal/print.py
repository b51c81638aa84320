from journal.app import app
from journal.record import record


@app.task
def print_page(number, paper="A4"):
    record("print_page", number, paper)
    return f"{number} on {paper}"


@app.task(time_limit=60, soft_time_limit=50)
def bind_pages(pages):
    return " ".join(pages)
