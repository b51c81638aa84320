"""What the views of the bakery would do."""

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

from celery import chain, chord, group
from django.db import transaction

from bakery.celery import app
from orders import tasks
from orders.tasks import bake, deliver, fail, label, notify, pay, plan, price, take_order, total


def drive():
    results = {
        "order": take_order.delay("Ada", loaves=2).get(timeout=30),
        "bake": bake.apply_async((4,), queue="ovens").get(timeout=30),
        "chain": chain(bake.s(3), price.s())().get(timeout=30),
        "chord": chord([price.s(1), price.s(2)])(total.s()).get(timeout=30),
        "group": group(price.s(1), price.s(2)).apply_async().get(timeout=30),
        "pipe": (bake.s(1) | price.s()).apply_async().get(timeout=30),
        "deliver": deliver.delay("hill").get(timeout=30),
        "pay": pay.delay(7).get(timeout=30),
        "knead": tasks.knead.delay(2).get(timeout=30),
        "plan": plan.delay(date(2033, 5, 18)).get(timeout=30),
        "label": label.apply_async(args=[UUID(int=7)], kwargs={"amount": Decimal("1.20")}).get(timeout=30),
    }
    with transaction.atomic():
        notify.delay_on_commit("Ada")
        notify.apply_async_on_commit(("Bob",), {"text": "soon"})
    tasks.send_mail.apply_async(("a@b.c",), countdown=1)
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    take_order.apply_async(("Eve",), eta=soon)
    take_order.apply_async(("Kim",), link=notify.si("Kim"))
    app.send_task("stock", args=["rye"])
    pay.delay(500)
    fail.delay()
    tasks.start_day.delay(["rye", "oat"])
    return results


DONE = {"notify": 3, "send_mail": 1, "stock": 1, "fail": 1, "summarize": 1, "count_loaves": 1, "pay": 4, "take_order": 3}
