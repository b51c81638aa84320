from datetime import datetime, timedelta, timezone

from django.http import JsonResponse

from shop import tasks
from shop.tasks import build_report, send_mail as mail


def signup(request):
    mail.delay(request.POST["email"])
    result = mail.using(run_after=60 * 60).delay(request.POST["email"], subject="Again")
    return JsonResponse({"task": result.id})


def report(request):
    options = {"queue": "reports"}
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    # they take long
    build_report.using(run_after=tomorrow, queue="reports").delay("yearly", year=2033)
    build_report.using(run_after=tomorrow, expires=3600).delay("yearly", year=2033)
    # TODO taskq: apply_async: the arguments use * or **, or there are too many
    tasks.odd.apply_async([3], **options)
    tasks.special.apply_async(countdown=5)
    tasks.build_report.s(**request.GET.dict()).on_success(tasks.tidy.s()).delay()
    return JsonResponse({"length": tasks.fetch.delay("a").result(timeout=10)})
