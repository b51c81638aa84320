from datetime import datetime, timedelta, timezone

from django.http import JsonResponse

from shop import tasks
from shop.tasks import build_report, send_mail as mail


def signup(request):
    mail.delay(request.POST["email"])
    result = mail.apply_async((request.POST["email"],), {"subject": "Again"}, countdown=60 * 60)
    return JsonResponse({"task": result.id})


def report(request):
    options = {"queue": "reports"}
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    build_report.apply_async(
        args=["yearly"],
        kwargs={"year": 2033},
        eta=tomorrow,
        queue="reports",  # they take long
    )
    build_report.apply_async(args=["yearly"], kwargs={"year": 2033}, eta=tomorrow, expires=3600)
    tasks.odd.apply_async([3], **options)
    tasks.special.apply_async(countdown=5)
    tasks.build_report.apply_async(kwargs=request.GET.dict(), link=tasks.tidy.s())
    return JsonResponse({"length": tasks.fetch.apply_async(args=["a"]).get(timeout=10)})
