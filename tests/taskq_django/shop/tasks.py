"""Tasks that autodiscovery must find."""

from taskq_django import task


@task(name="shop:greet", retention=600)
def greet(name: str) -> str:
    return f"hello {name}"


@task(name="shop:restock", queue="low")
async def restock(sku: str, amount: int = 1) -> None:
    pass
