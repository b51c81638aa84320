"""What the views of the fleet would do."""

from datetime import datetime, timedelta

from celery.canvas import chain
from django.db import transaction
from django.utils import timezone

import drivers.tasks as of_drivers
from trucks import tasks as of_trucks


def drive():
    start = timezone.make_aware(datetime(2033, 5, 18, 8))
    first = of_trucks.inspect_truck.delay(1)
    results = {
        "inspect": first.get(timeout=30),
        "weigh": of_trucks.weigh.apply_async(kwargs={"number": 3}).get(timeout=30),
        "who": of_trucks.who.delay(loud=True).get(timeout=30),
        "repair": of_trucks.repair.delay(2, parts=["tire", "door"]).get(timeout=30),
        "find": of_trucks.find.delay("1").get(timeout=30),
        "shift": of_drivers.shift.delay(start, start + timedelta(hours=1)).get(timeout=30),
        "call": of_drivers.call.delay("Bob").get(timeout=30),
        "shout": chain(of_drivers.greet.s("Ada"), of_drivers.shout.s())().get(timeout=30),
        "polite": (of_drivers.greet.s("Ada", greeting="Dear").set(queue="garage") | of_drivers.shout.s())().get(timeout=30),
    }
    with transaction.atomic():
        transaction.on_commit(lambda: of_drivers.forget.delay("Kim"))
    of_trucks.tow.delay(9)
    of_trucks.find.delay("2")
    of_trucks.tour.delay([1, 2])
    of_trucks.rest(4)
    return {name: value for name, value in results.items()}


DONE = {"forget": 1, "tow": 3, "find": 2, "sum_up": 1, "pause": 1, "wash": 1, "assign": 1}
