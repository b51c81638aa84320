"""Test the e-mail backend: each message becomes a task, and a worker sends it complete by another backend."""

import email
import email.policy
import json
import logging
import re
import smtplib
from collections.abc import Iterator
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from typing import Any

import django
import pytest
from django.core import mail
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage, EmailMultiAlternatives, get_connection, send_mail, send_mass_mail
from django.db import transaction
from django.test import override_settings
from django.utils.log import AdminEmailHandler
from django.utils.translation import gettext_lazy

from taskq_core import ConfigurationError, EnqueueError, PayloadTooLargeError, TaskState
from taskq_core.cli.running import banner, worker_config
from taskq_core.inspector import Inspector
from taskq_django import taskq
from taskq_django.mail import TASK, MailContentError
from taskq_django.mail.backend import EmailBackend
from taskq_django.testing import capture, drain, eager
from tests.logged import logged_here
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django import mailers

pytestmark = [
    # Django 6.1 deprecates the settings that preceded MAILERS, which must still work
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]
BACKEND = "taskq_django.mail.EmailBackend"
RECORDING = "tests.taskq_django.mailers.RecordingBackend"
NOWHERE = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture(autouse=True)
def _mail(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.EMAIL_BACKEND = BACKEND
    settings.TASKQ = {**NOWHERE, "EMAIL": {"BACKEND": RECORDING}}
    monkeypatch.setattr(mailers, "sent", [])
    monkeypatch.setattr(mailers, "errors", iter(()))
    yield
    taskq.close()


def test_the_task_is_in_the_queues_of_the_mailers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(taskq, "task_queues")  # the one of conftest.py
    assert TASK in taskq.task_queues()["default"]

    settings.TASKQ = {**NOWHERE, "EMAIL": {"BACKEND": RECORDING, "OPTIONS": {"queue": "mail"}}}

    assert taskq.task_queues()["mail"] == [TASK]
    assert TASK not in taskq.task_queues().get("default", [])
    text = banner(taskq, worker_config(taskq.settings, {"queues": "default"}), all_tasks=True)
    assert re.search(rf"{TASK} +thread +mail \(not served by this worker\)$", text, re.MULTILINE)
    assert [each.id for each in run_checks() if "'mail'" in each.msg] == ["taskq.W031"]


def as_mime(message: Any) -> Any:
    """Return the parsed MIME message that would be sent, without the parts that differ each time."""
    read = email.message_from_bytes(message.message().as_bytes(), policy=email.policy.default)
    for part in read.walk():
        if part.is_multipart():
            part.set_boundary("=boundary=")
    return read


def parts(message: Any) -> list[tuple[Any, ...]]:
    """Return type, headers and content of each part."""
    return [
        (
            part.get_content_type(),
            part.get_filename(),
            part["Content-ID"],
            part.get_content_disposition(),
            None if part.is_multipart() else part.get_content(),
        )
        for part in as_mime(message).walk()
    ]


def rich() -> EmailMultiAlternatives:
    """Return a message that uses every feature."""
    message = EmailMultiAlternatives(
        gettext_lazy("Your order"),
        "plain ü text",
        "Shop <shop@example.com>",
        ["ada@example.com", "Gräce <grace@example.com>"],
        bcc=["hidden@example.com"],
        cc=["copy@example.com"],
        reply_to=["answers@example.com"],
        headers={"X-Order": "17", "List-Unsubscribe": "<https://example.com/u>"},
    )
    message.attach_alternative("<p>rich ü text</p>", "text/html")
    message.attach("bill.pdf", b"%PDF-1.4\x00\xff", "application/pdf")
    message.attach("näme.txt", "text ü", "text/plain")
    image = _image()
    message.attach(image)
    message.attach(
        "earlier.eml", EmailMessage("Earlier", "before", "a@example.com", ["b@example.com"]), "message/rfc822"
    )
    message.tags = ["order"]  # type: ignore[attr-defined]  # an attribute that backends of mail services read
    return message


def _image() -> Any:
    """Return an inline image in the form that the installed Django version accepts."""
    if django.VERSION >= (6, 0):
        part = email.message.MIMEPart()
        part.set_content(PNG, maintype="image", subtype="png", disposition="inline", cid="<logo>")
        return part
    image = MIMEImage(PNG, "png")
    image["Content-ID"] = "<logo>"
    image["Content-Disposition"] = "inline"
    return image


class TestInAWorker:
    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisServer, settings: Any) -> None:
        settings.TASKQ = {**settings.TASKQ, "EMAIL": {"BACKEND": RECORDING, "OPTIONS": {"queue": "low"}}}

    @pytest.mark.redis
    def test_a_message_arrives_complete(self, inspector: Inspector) -> None:
        message = rich()

        assert message.send() == 1
        assert mailers.sent == []
        (task,) = inspector.tasks("low", TaskState.PENDING).tasks
        assert task.name == TASK
        drain()

        (arrived,) = mailers.sent
        assert parts(arrived) == parts(message)
        assert arrived.recipients() == message.recipients()
        read, original = as_mime(arrived), as_mime(message)
        for name in ("Subject", "From", "To", "Cc", "Reply-To", "X-Order", "List-Unsubscribe"):
            assert read[name] == original[name]
        assert arrived.bcc == ["hidden@example.com"]
        assert read["Bcc"] is None
        assert arrived.tags == ["order"]  # type: ignore[attr-defined]

    @pytest.mark.redis
    def test_a_retry_sends_the_same_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its Message-ID and Date are set at the enqueue, so a recipient can recognize a duplicate."""
        monkeypatch.setattr(mailers, "errors", iter([smtplib.SMTPServerDisconnected("gone"), None]))
        send_mail("Hi", "there", "a@example.com", ["b@example.com"])

        runs = drain(advance=3600)

        assert [run.outcome for run in runs] == ["retried", "completed"]
        first, second = (each.message() for each in mailers.sent)
        assert first["Message-ID"]
        assert (first["Message-ID"], first["Date"]) == (second["Message-ID"], second["Date"])

    @pytest.mark.redis
    def test_a_permanent_refusal_is_not_retried(self, monkeypatch: pytest.MonkeyPatch, inspector: Inspector) -> None:
        errors = [mailers.refused(550, 554), mailers.refused(550, 450)]
        monkeypatch.setattr(mailers, "errors", iter(errors))
        send_mass_mail([("Hi", "there", "a@example.com", ["b@example.com"])] * 2)

        runs = drain(raises=False)

        assert sorted(run.outcome for run in runs) == ["archived", "retried"]
        (archived,) = inspector.tasks("low", TaskState.ARCHIVED).tasks
        assert archived.last_error == "the server permanently refuses all recipients"

    @pytest.mark.redis
    def test_the_contents_of_a_message_are_never_logged(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(mailers, "errors", iter([smtplib.SMTPDataError(451, b"try later")]))
        with caplog.at_level(logging.DEBUG):
            send_mail("secret subject", "secret body", "secret@example.com", ["secret@example.com"])
            drain(raises=False)

        assert "error=SMTPDataError: (451, b'try later')" in caplog.text
        assert "secret" not in caplog.text

    @pytest.mark.redis
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("mode", ["on_commit", "outbox"])
    def test_a_rollback_sends_no_message(self, settings: Any, mode: str) -> None:
        settings.TASKQ = {**settings.TASKQ, "ENQUEUE": mode}
        with transaction.atomic():
            assert send_mail("kept", "there", "a@example.com", ["b@example.com"]) == 1
        with transaction.atomic():
            send_mail("lost", "there", "a@example.com", ["b@example.com"])
            transaction.set_rollback(True)

        drain()

        assert [each.subject for each in mailers.sent] == ["kept"]


class TestEnqueueing:
    def test_each_message_with_recipients_becomes_one_task(self) -> None:
        messages = [
            EmailMessage("1", to=["a@example.com"]),
            EmailMessage("2"),
            EmailMessage("3", bcc=["b@example.com"]),
        ]

        with capture() as tasks:
            assert get_connection().send_messages(messages) == 2
            assert get_connection().send_messages([]) == 0
            tasks.assert_enqueued(TASK, count=2)

    def test_sending_does_not_change_the_message_object(self) -> None:
        message = rich()
        with capture():
            message.send()

        assert "Message-ID" not in message.extra_headers

    def test_a_given_message_id_is_kept(self) -> None:
        with eager():
            EmailMessage("Hi", to=["a@example.com"], headers={"message-id": "<1@example.com>"}).send()

        assert mailers.sent[0].message()["Message-ID"] == "<1@example.com>"

    def test_html_and_plain_messages(self) -> None:
        """The type of the body is kept, and a plain message does not become one with alternatives."""
        message = EmailMessage("Hi", "<b>there</b>", to=["a@example.com"])
        message.content_subtype = "html"
        with eager():
            message.send()
            send_mail("Hi", "there", None, ["a@example.com"], html_message="<b>there</b>")

        assert [type(each) for each in mailers.sent] == [EmailMessage, EmailMultiAlternatives]
        assert mailers.sent[0].message().get_content_type() == "text/html"
        assert [each[0] for each in parts(mailers.sent[1])] == ["multipart/alternative", "text/plain", "text/html"]

    def test_the_payload_is_plain_json(self) -> None:
        with capture() as tasks:
            rich().send()

        payload = json.loads(tasks.enqueued[0].payload)
        assert payload["mail"]["subject"] == "Your order"
        assert payload["mail"]["attachments"][0] == {
            "filename": "bill.pdf",
            "mimetype": "application/pdf",
            "text": None,
            "data": "JVBERi0xLjQA/w==",
        }

    @pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
    def test_settings_determine_the_options_of_the_mail_task(self, settings: Any) -> None:
        """Options of the connection override options of the settings."""
        settings.TASKQ = {**NOWHERE, "EMAIL": {"BACKEND": RECORDING, "OPTIONS": {"queue": "mail", "max_retry": 3}}}

        with capture() as tasks:
            connection = get_connection(max_retry=4)
            connection.send_messages([EmailMessage("Hi", to=["a@example.com"])])

        assert (tasks.enqueued[0].queue, tasks.enqueued[0].max_retry) == ("mail", 4)
        with pytest.raises(ConfigurationError, match="unknown task option 'max_retries'; did you mean 'max_retry'"):
            get_connection(max_retries=4)

    def test_the_default_sends_by_smtp(self, settings: Any) -> None:
        settings.TASKQ = NOWHERE

        assert taskq.settings.email.backend == "django.core.mail.backends.smtp.EmailBackend"
        assert isinstance(get_connection(), EmailBackend)

    def test_a_redis_outage_raises_unless_fail_silently(self, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(EnqueueError):
            send_mail("Hi", "secret", None, ["a@example.com"])
        with caplog.at_level(logging.WARNING, logger="taskq.mail"):
            assert send_mail("Hi", "secret", None, ["a@example.com"], fail_silently=True) == 0

        assert [record.getMessage()[:27] for record in logged_here(caplog)] == ["an e-mail was not enqueued:"]
        assert "secret" not in caplog.text

    def test_a_mailed_log_record_causes_no_endless_loop(self, settings: Any) -> None:
        """The loss is logged, and Django's handler that mails log records would mail that record again."""
        settings.ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
        mailed: list[str] = []

        class Mailing(AdminEmailHandler):
            def emit(self, record: logging.LogRecord) -> None:
                mailed.append(record.name)
                super().emit(record)

        handler = Mailing()
        logging.getLogger().addHandler(handler)
        try:
            logging.getLogger("shop").error("broken")
        finally:
            logging.getLogger().removeHandler(handler)

        assert mailed[0] == "shop"
        assert mailed.count("taskq.mail") == 1

    def test_attributes_without_a_json_form_are_omitted(self, caplog: pytest.LogCaptureFixture) -> None:
        message: Any = EmailMessage("Hi", to=["a@example.com"])
        message.metadata, message.request = {"order": 17}, object()

        with eager(), caplog.at_level(logging.WARNING, logger="taskq.mail"):
            message.send()

        assert mailers.sent[0].metadata == {"order": 17}  # type: ignore[attr-defined]
        assert not hasattr(mailers.sent[0], "request")
        assert [record.getMessage() for record in logged_here(caplog)] == [
            "the attribute 'request' of an e-mail is dropped: object has no JSON form"
        ]

    @pytest.mark.skipif(django.VERSION >= (6, 0), reason="Django 6 has no such attributes any more")
    def test_other_content_subtypes_are_kept(self) -> None:
        message = rich()
        message.mixed_subtype = "related"

        with eager():
            message.send()

        assert mailers.sent[0].message().get_content_type() == "multipart/related"

    def test_a_legacy_mime_part_is_attached(self) -> None:
        """Django 6 still accepts it, with Django's own warning."""
        part = MIMEBase("application", "x-thing")
        part.set_payload("hello")
        part["X-Own"] = "1"
        message = EmailMessage("Hi", "there", to=["a@example.com"])
        message.attachments.append(part)

        with eager():
            message.send()

        assert [(each.get_content_type(), each["X-Own"]) for each in as_mime(mailers.sent[0]).walk()][-1] == (
            "application/x-thing",
            "1",
        )


class OwnMime(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        return super().message(**kwargs)


class TestRefusals:
    """Refusals happen before anything is enqueued, and errors contain nothing of the message."""

    @pytest.fixture(autouse=True)
    def _captured(self) -> Iterator[None]:
        with capture() as tasks:
            yield
            assert tasks.enqueued == []

    def test_a_message_that_is_too_large_is_refused(self) -> None:
        """If one of several messages is refused, none is enqueued."""
        message = EmailMessage("Hi", "there", to=["a@example.com"])
        message.attach("big.bin", b"\0" * (13 << 20), "application/octet-stream")

        with pytest.raises(PayloadTooLargeError, match=r"payload of task 'taskq:send-mail' is 18[0-9]+ bytes"):
            message.send()
        with pytest.raises(PayloadTooLargeError):
            get_connection().send_messages([EmailMessage("small", to=["a@example.com"]), message])

    def test_a_header_with_a_newline_is_refused(self) -> None:
        """Every Django backend refuses it."""
        with pytest.raises(ValueError, match=r"[Nn]ewline|linefeed|header value"):
            send_mail("Hi\nBcc: everybody@example.com", "there", None, ["a@example.com"])

    def test_a_message_class_with_its_own_mime_is_refused(self) -> None:
        with pytest.raises(MailContentError, match="class OwnMime renders its own MIME"):
            OwnMime("Hi", to=["a@example.com"]).send()

    def test_an_attachment_without_a_content_type_is_refused(self) -> None:
        message = EmailMessage("Hi", to=["a@example.com"])
        message.attachments.append(("a", b"b", None))

        with pytest.raises((MailContentError, AttributeError)):
            message.send()

    def test_a_password_in_the_connection_is_refused(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="cannot be passed with a message") as caught:
            send_mail("Hi", "there", None, ["a@example.com"], auth_user="ada", auth_password="hunter2")
        assert "hunter2" not in str(caught.value)

    @rows("backend", [BACKEND, "tests.taskq_django.mailers.Ours"])
    def test_a_backend_that_enqueues_again_is_refused(self, settings: Any, backend: str) -> None:
        settings.TASKQ = {"EMAIL": {"BACKEND": backend}}
        with pytest.raises(ImproperlyConfigured, match="enqueues and would never send"):
            send_mail("Hi", "there", None, ["a@example.com"])

    @rows(
        ("value", "problem"),
        [
            ("smtp", "EMAIL must be a dict of BACKEND and OPTIONS, got 'smtp'"),
            ({"BACKEND": 3}, "EMAIL['BACKEND'] must be the path of a backend's class, got 3"),
            ({"OPTIONS": 3}, "EMAIL['OPTIONS'] must be a dict of task options, got 3"),
            ({"OPTIONS": {"queues": "a"}}, "EMAIL['OPTIONS']: unknown task option 'queues'; did you mean 'queue'?"),
            ({"OPTIONS": {"task_id": "a"}}, "EMAIL['OPTIONS']: task_id cannot be the same for all tasks"),
            ({"BACKENDS": "a.b"}, "unknown setting in EMAIL 'BACKENDS'; did you mean 'BACKEND'?"),
        ],
    )
    def test_invalid_mail_settings_are_refused(self, settings: Any, value: object, problem: str) -> None:
        settings.TASKQ = {"EMAIL": value}
        with pytest.raises(ConfigurationError) as caught:
            _ = taskq.settings
        assert str(caught.value) == problem

    def test_an_unknown_backend_is_refused(self, settings: Any) -> None:
        settings.TASKQ = {"EMAIL": {"BACKEND": "nowhere.EmailBackend"}}
        with pytest.raises(ImproperlyConfigured, match=r"TASKQ\['EMAIL'\]\['BACKEND'\]: No module named 'nowhere'"):
            send_mail("Hi", "there", None, ["a@example.com"])


@pytest.mark.skipif(not hasattr(mail, "mailers"), reason="MAILERS came with Django 6.1")
class TestMailers:
    @pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
    def test_a_mailer_enqueues_messages_for_another_mailer(self) -> None:
        configured = {
            "default": {"BACKEND": BACKEND, "OPTIONS": {"using": "real", "queue": "mail"}},
            "real": {"BACKEND": RECORDING},
        }
        with override_settings(MAILERS=configured), eager() as tasks:
            assert send_mail("Hi", "there", "a@example.com", ["b@example.com"]) == 1
            assert EmailMessage("Ho", "there", "a@example.com", ["b@example.com"]).send(using="default") == 1
            assert mail.mailers["default"].alias == "default"

        assert [each.subject for each in mailers.sent] == ["Hi", "Ho"]
        assert {each.queue for each in tasks.enqueued} == {"mail"}

    @rows(
        ("options", "problem"),
        [
            ({}, r"MAILERS\['default'\]: OPTIONS must contain 'using', the name of the mailer that sends"),
            ({"using": "nobody"}, "'using' names the mailer 'nobody', which is not in MAILERS"),
            ({"using": "default"}, "'using' names the mailer 'default', which also enqueues"),
        ],
    )
    def test_an_invalid_mailer_is_refused(self, options: dict[str, str], problem: str) -> None:
        with (
            override_settings(MAILERS={"default": {"BACKEND": BACKEND, "OPTIONS": options}}),
            pytest.raises(ImproperlyConfigured, match=problem),
        ):
            send_mail("Hi", "there", "a@example.com", ["b@example.com"])


class TestChecks:
    """System checks report problems before the first message is lost."""

    def found_errors(self) -> list[tuple[str | None, str]]:
        return [(each.id, each.msg) for each in run_checks() if str(each.id).startswith("taskq.")]

    def test_a_valid_mailer_passes_the_check(self, settings: Any) -> None:
        assert self.found_errors() == []
        settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
        settings.TASKQ = {"EMAIL": {"BACKEND": BACKEND}}
        assert self.found_errors() == [], "no backend enqueues mail"

    def test_an_invalid_backend_fails_the_check(self, settings: Any) -> None:
        settings.TASKQ = {"EMAIL": {"BACKEND": BACKEND}}
        assert self.found_errors() == [
            (
                "taskq.E031",
                "EMAIL_BACKEND enqueues e-mail that could never be sent: TASKQ['EMAIL']['BACKEND'] is "
                "'taskq_django.mail.EmailBackend', which enqueues and would never send.",
            )
        ]

    def test_a_mail_queue_without_a_worker_fails_the_check(self, settings: Any) -> None:
        settings.TASKQ = {"EMAIL": {"BACKEND": RECORDING, "OPTIONS": {"queue": "mail"}}}
        assert self.found_errors() == [
            (
                "taskq.W031",
                "EMAIL_BACKEND enqueues e-mail to queue 'mail', which TASKQ['QUEUES'] does not name, so that no worker "
                "serves it.",
            )
        ]
        settings.TASKQ = {**settings.TASKQ, "QUEUES": ["mail", "default"]}
        assert self.found_errors() == []

    @pytest.mark.skipif(not hasattr(mail, "mailers"), reason="MAILERS came with Django 6.1")
    def test_each_mailer_is_checked(self) -> None:
        mailers = {
            "default": {"BACKEND": BACKEND, "OPTIONS": {"using": "real", "queue": "mail"}},
            "lost": {"BACKEND": BACKEND},
            "odd": {"BACKEND": BACKEND, "OPTIONS": {"using": "real", "retries": 3}},
            "real": {"BACKEND": RECORDING},
            "gone": {"BACKEND": "nowhere.EmailBackend"},
        }
        with override_settings(MAILERS=mailers):
            found_errors = self.found_errors()

        assert [(number, text.partition(" enqueues")[0]) for number, text in found_errors] == [
            ("taskq.W031", "MAILERS['default']"),
            ("taskq.E031", "MAILERS['lost']"),
            ("taskq.E031", "MAILERS['odd']"),
        ]
        assert "unknown task option 'retries'" in found_errors[2][1]


def test_a_mailer_option_needs_the_mailers_setting() -> None:
    with pytest.raises(ImproperlyConfigured, match="'using' only works for a backend in MAILERS"):
        EmailBackend(using="real")
