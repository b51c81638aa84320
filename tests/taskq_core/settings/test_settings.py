"""Settings: every key, where values come from, and what a refusal says."""

import pickle
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, Settings, TaskQ
from taskq_core.settings import (
    ArchiveLimits,
    ArchiveSettings,
    CircuitSettings,
    EnqueueMode,
    QueueLimit,
    Relation,
    TraceSettings,
    WhenFull,
    check_whole,
    parse_queues,
    seconds,
    unknown,
)
from tests.rows import rows


class TestDefaults:
    def test_defaults_apply_without_settings(self) -> None:
        """The defaults match the documentation."""
        settings = Settings()

        assert settings.url == "redis://localhost:6379/0"
        assert settings.prefix == "asynq"
        assert dict(settings.queues) == {"default": 1}
        assert settings.strict_priority is False
        assert settings.concurrency == 10
        assert settings.shutdown_grace == 30.0
        assert dict(settings.defaults) == {}
        assert settings.enqueue is EnqueueMode.ON_COMMIT
        assert settings.enqueue_timeout == 2.0
        assert settings.autodiscover is True
        assert dict(settings.limits) == {}
        assert settings.circuit_breaker == CircuitSettings(failures=5, first_pause=0.5, max_pause=5.0)
        assert settings.archive.limits("any") == ArchiveLimits(max_tasks=10_000, kept_s=90 * 86_400)
        assert settings.trace == TraceSettings(relation=Relation.PARENT, baggage=True)

    def test_settings_cannot_be_changed(self) -> None:
        settings = Settings(queues={"a": 1}, defaults={"max_retry": 1})

        with pytest.raises(AttributeError):
            settings.concurrency = 3  # type: ignore[misc]  # the point of the test
        with pytest.raises(TypeError):
            settings.queues["b"] = 2  # type: ignore[index]  # the point of the test
        with pytest.raises(TypeError):
            settings.defaults["queue"] = "b"  # type: ignore[index]  # the point of the test


class TestFromMapping:
    def test_every_key_is_read(self) -> None:
        """Each key of the dict arrives at its field, in its final form."""
        settings = Settings.from_mapping(
            {
                "URL": "redis://example:1/2",
                "PREFIX": "shop",
                "QUEUES": {"critical": 6, "low": 1},
                "STRICT_PRIORITY": True,
                "CONCURRENCY": 3,
                "SHUTDOWN_GRACE": timedelta(minutes=1),
                "UNKNOWN_TASK_TIMEOUT": timedelta(minutes=5),
                "DEFAULTS": {"max_retry": 3},
                "ENQUEUE": "immediate",
                "ENQUEUE_TIMEOUT": 1,
                "AUTODISCOVER": ["jobs"],
                "ARCHIVE": {"MAX_TASKS": 5, "MAX_AGE": timedelta(days=1), "QUEUES": {"low": {"MAX_TASKS": 2}}},
                "TRACE": {
                    "RELATION": "link",
                    "BAGGAGE": False,
                    "URL": "https://tempo.example/trace/{trace_id}",
                },
            }
        )

        assert settings == Settings(
            url="redis://example:1/2",
            prefix="shop",
            queues={"critical": 6, "low": 1},
            strict_priority=True,
            concurrency=3,
            shutdown_grace=60.0,
            unknown_task_timeout=300.0,
            defaults={"max_retry": 3},
            enqueue=EnqueueMode.IMMEDIATE,
            enqueue_timeout=1.0,
            autodiscover=("jobs",),
            archive=ArchiveSettings(max_tasks=5, max_age=86_400.0, queues={"low": {"MAX_TASKS": 2}}),
            trace=TraceSettings(relation=Relation.LINK, baggage=False, url="https://tempo.example/trace/{trace_id}"),
        )
        assert isinstance(settings.enqueue_timeout, float)

    def test_a_list_of_queues_gives_each_the_weight_one(self) -> None:
        assert dict(Settings.from_mapping({"QUEUES": ["a", "b"]}).queues) == {"a": 1, "b": 1}

    @rows(
        ("mapping", "message"),
        [
            ({"CONCURENCY": 1}, "unknown setting in TASKQ 'CONCURENCY'; did you mean 'CONCURRENCY'?"),
            ({"concurrency": 1}, "unknown setting in TASKQ 'concurrency'; did you mean 'CONCURRENCY'?"),
            ({"TRACE": {"RELATON": "link"}}, "unknown setting in TRACE 'RELATON'; did you mean 'RELATION'?"),
            ({"XYZZY": 1}, "unknown setting in TASKQ 'XYZZY'; known are ARCHIVE, AUTODISCOVER, CIRCUIT_BREAKER, CON"),
            ({5: 1}, "unknown setting in TASKQ '5'; known are "),
            ({"URL": ""}, "URL must not be blank; for example redis://localhost:6379/0"),
            ({"URL": " \t"}, "URL must not be blank"),
            ({"PREFIX": ""}, "key prefix must not be blank, got ''"),
            ({"PREFIX": "a{b"}, "key prefix must not contain a brace"),
            ({"PREFIX": 3}, "key prefix must be a string, got int"),
            ({"QUEUES": {}}, "QUEUES must map at least one queue to its weight, got {}"),
            ({"QUEUES": "a"}, "QUEUES must map at least one queue to its weight, got 'a'"),
            ({"QUEUES": {1: 1}}, "QUEUES[1]: a queue's name must be text"),
            ({"QUEUES": ["a", {"b": 1}]}, "QUEUES: a queue's name must be text, got {'b': 1}"),
            ({"QUEUES": {"": 1}}, "queue name must not be blank"),
            ({"QUEUES": {"}x": 1}}, "queue name must not start with '}'"),
            ({"QUEUES": {"a": 0}}, "QUEUES['a'] must be between 1 and 1000000, got 0"),
            ({"QUEUES": {"a": 1.5}}, "QUEUES['a'] must be a whole number, got 1.5"),
            ({"QUEUES": {"a": True}}, "QUEUES['a'] must be a whole number, got True"),
            ({"STRICT_PRIORITY": 1}, "STRICT_PRIORITY must be True or False, got 1"),
            ({"CONCURRENCY": 0}, "CONCURRENCY must be between 1 and 100000, got 0"),
            ({"CONCURRENCY": "4"}, "CONCURRENCY must be a whole number, got '4'"),
            ({"SHUTDOWN_GRACE": -1}, "SHUTDOWN_GRACE must be 0 or more seconds, got -1"),
            ({"UNKNOWN_TASK_TIMEOUT": -1}, "UNKNOWN_TASK_TIMEOUT must be 0 or more seconds, got -1"),
            ({"SHUTDOWN_GRACE": "30"}, "SHUTDOWN_GRACE must be a timedelta or a number of seconds, got '30'"),
            ({"DEFAULTS": [1]}, "DEFAULTS must be a dict of task options, got list"),
            ({"ENQUEUE": "later"}, "ENQUEUE must be 'on_commit', 'immediate' or 'outbox', got 'later'"),
            ({"ENQUEUE": None}, "ENQUEUE must be 'on_commit', 'immediate' or 'outbox', got None"),
            ({"ENQUEUE_TIMEOUT": 0}, "ENQUEUE_TIMEOUT must be more than 0 seconds, got 0"),
            ({"ENQUEUE_TIMEOUT": float("nan")}, "ENQUEUE_TIMEOUT must be at most 100 years, got nan"),
            ({"ENQUEUE_TIMEOUT": float("inf")}, "ENQUEUE_TIMEOUT must be at most 100 years, got inf"),
            ({"EAGER": "yes"}, "EAGER must be True or False, got 'yes'"),
            ({"AUTODISCOVER": "tasks"}, "AUTODISCOVER must be True, False or a list of module names, got 'tasks'"),
            ({"AUTODISCOVER": [1]}, "AUTODISCOVER must be True, False or a list of module names, got [1]"),
            ({"AUTODISCOVER": 0}, "AUTODISCOVER must be True, False or a list of module names, got 0"),
            ({"ARCHIVE": 5}, "ARCHIVE must be a dict of MAX_TASKS, MAX_AGE and QUEUES, got 5"),
            ({"ARCHIVE": {"MAX": 5}}, "unknown setting in ARCHIVE 'MAX'; did you mean 'MAX_AGE'?"),
            ({"ARCHIVE": {"MAX_TASKS": 0}}, "ARCHIVE['MAX_TASKS'] must be between 1 and 10000000, got 0"),
            ({"ARCHIVE": {"MAX_AGE": 0}}, "ARCHIVE['MAX_AGE'] must be at least 1 second, got 0"),
            ({"ARCHIVE": {"MAX_AGE": "90 d"}}, "ARCHIVE['MAX_AGE'] must be a timedelta or a number of seconds, got"),
            ({"ARCHIVE": {"QUEUES": ["low"]}}, "ARCHIVE['QUEUES'] must be a dict of queue names, got ['low']"),
            ({"ARCHIVE": {"QUEUES": {"low": 5}}}, "ARCHIVE['QUEUES']['low'] must be a dict of MAX_TASKS and MAX_AGE"),
            (
                {"ARCHIVE": {"QUEUES": {"low": {"MAX_TASK": 5}}}},
                "unknown setting in ARCHIVE['QUEUES']['low'] 'MAX_TASK'; did you mean 'MAX_TASKS'?",
            ),
            (
                {"ARCHIVE": {"QUEUES": {"low": {"MAX_TASKS": -1}}}},
                "ARCHIVE['QUEUES']['low']['MAX_TASKS'] must be between 1 and 10000000, got -1",
            ),
            (
                {"ARCHIVE": {"QUEUES": {"low": ArchiveLimits(max_tasks=0)}}},
                "ARCHIVE['QUEUES']['low']['MAX_TASKS'] must be between 1 and 10000000, got 0",
            ),
            ({"ARCHIVE": {"QUEUES": {"}": {}}}}, "queue name must not start with '}'"),
            ({"LIMITS": 5}, "LIMITS must be a dict of queue names, got 5"),
            ({"LIMITS": {"}": 5}}, "queue name must not start with '}'"),
            ({"LIMITS": {7: 5}}, "LIMITS[7]: a queue's name must be text"),
            ({"LIMITS": {"low": 0}}, "LIMITS['low']: MAX_PENDING must be between 1 and 100000000, got 0"),
            ({"LIMITS": {"low": "5"}}, "LIMITS['low']: MAX_PENDING must be a whole number, got '5'"),
            ({"LIMITS": {"low": {}}}, "LIMITS['low'] must have MAX_PENDING, CONCURRENCY or WORKER_CONCURRENCY, got {}"),
            (
                {"LIMITS": {"low": {"MAX_PENDNG": 5}}},
                "unknown setting in LIMITS['low'] 'MAX_PENDNG'; did you mean 'MAX_PENDING'?",
            ),
            (
                {"LIMITS": {"low": {"MAX_PENDING": 5, "WHEN_FULL": "wait"}}},
                "LIMITS['low']: WHEN_FULL must be 'reject' or 'block', got 'wait'",
            ),
            (
                {"LIMITS": {"low": {"MAX_PENDING": 5, "BLOCK_TIMEOUT": 0}}},
                "LIMITS['low']: BLOCK_TIMEOUT must be more than 0 seconds, got 0",
            ),
            (
                {"CIRCUIT_BREAKER": True},
                "CIRCUIT_BREAKER must be a dict of FAILURES, FIRST_PAUSE and MAX_PAUSE, or False, got True",
            ),
            (
                {"CIRCUIT_BREAKER": {"FAILURE": 5}},
                "unknown setting in CIRCUIT_BREAKER 'FAILURE'; did you mean 'FAILURES'?",
            ),
            ({"CIRCUIT_BREAKER": {"FAILURES": -1}}, "CIRCUIT_BREAKER['FAILURES'] must be between 0 and 1000000, got"),
            (
                {"CIRCUIT_BREAKER": {"FIRST_PAUSE": 0}},
                "CIRCUIT_BREAKER['FIRST_PAUSE'] must be more than 0 seconds, got 0",
            ),
            (
                {"CIRCUIT_BREAKER": {"FIRST_PAUSE": 9}},
                "CIRCUIT_BREAKER['MAX_PAUSE'] must be at least FIRST_PAUSE (9.0 s), got 5.0 s",
            ),
            (
                {"TRACE": "link"},
                "TRACE must be a dict of RELATION, BAGGAGE, URL, OPT_IN and CREATE_SPANS, got 'link'",
            ),
            ({"LOG": "json"}, "LOG must be a dict of EXCEPTION_MESSAGES and RETRY_LEVEL, got 'json'"),
            (
                {"LOG": {"EXCEPTION_MESSAGES": 1}},
                "LOG['EXCEPTION_MESSAGES'] must be True, False, a function or its path, got 1",
            ),
            ({"LOG": {"RETRY_LEVEL": "LOUD"}}, "LOG['RETRY_LEVEL'] must be one of INFO, WARNING, ERROR, got 'LOUD'"),
            (
                {"TRACE": {"OPT_IN": "settle"}},
                "TRACE['OPT_IN'] must be a list with values from 'receive', 'settle', 'body_size', got 'settle'",
            ),
            ({"TRACE": {"RELATION": "x"}}, "TRACE['RELATION'] must be 'parent', 'link' or 'none', got 'x'"),
            ({"TRACE": {"BAGGAGE": 1}}, "TRACE['BAGGAGE'] must be True or False, got 1"),
            ({"TRACE": {"CREATE_SPANS": None}}, "TRACE['CREATE_SPANS'] must be True or False, got None"),
            *(
                ({"TRACE": {"URL": url}}, "TRACE['URL'] must be an http or https address with {trace_id} in it, got")
                for url in (
                    None,
                    "javascript:alert('{trace_id}')",
                    "JavaScript://x/%0aalert(1)//{trace_id}",
                    "data:text/html,{trace_id}",
                    "ftp://tempo.example/{trace_id}",
                    "//tempo.example/{trace_id}",
                    "https:///{trace_id}",
                    "https://[/{trace_id}",
                    "https://tempo.example/trace",
                    "https://tempo.example/{trace_id}/{span_id}",
                    'https://tempo.example/"onclick="/{trace_id}',
                    "https://tempo.example/{trace_id}\n",
                )
            ),
            (
                {"TRACE": {"URL": "https://me:secret@tempo.example/{trace_id}"}},
                "TRACE['URL'] must not contain a user",
            ),
        ],
    )
    def test_an_error_names_key_value_and_expected_type(self, mapping: Any, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_mapping(mapping)

        assert str(caught.value).startswith(message)


class TestBackPressure:
    def test_a_number_sets_a_limit_that_rejects(self) -> None:
        settings = Settings(limits={"low": 5})

        assert settings.limits == {
            "low": QueueLimit(max_pending=5, when_full=WhenFull.REJECT, block_timeout=None),
        }

    def test_a_mapping_sets_a_limit_that_blocks(self) -> None:
        limit = {"MAX_PENDING": 5, "WHEN_FULL": "block", "BLOCK_TIMEOUT": timedelta(minutes=1)}

        made = Settings.from_mapping({"LIMITS": {"low": limit}}).limits["low"]

        assert made == QueueLimit(max_pending=5, when_full=WhenFull.BLOCK, block_timeout=60.0)
        assert replace(Settings(limits={"low": made}), prefix="shop").limits == {"low": made}

    def test_the_circuit_breaker_can_be_disabled(self) -> None:
        for off in (False, {"FAILURES": 0}, CircuitSettings(failures=0)):
            assert Settings(circuit_breaker=off).circuit_breaker.failures == 0  # type: ignore[arg-type]  # as in a dict

    def test_the_environment_sets_limits(self) -> None:
        environ = {
            "TASKQ_LIMITS": '{"low": 5, "bulk": {"MAX_PENDING": 9, "WHEN_FULL": "block"}}',
            "TASKQ_CIRCUIT_BREAKER": "false",
        }

        settings = Settings.from_mapping({"LIMITS": {"other": 1}}, environ=environ)

        assert {name: limit.max_pending for name, limit in settings.limits.items()} == {"low": 5, "bulk": 9}
        assert settings.circuit_breaker.failures == 0


class TestArchive:
    def test_a_queue_inherits_missing_values_from_the_default(self) -> None:
        archive = Settings(
            archive={"MAX_TASKS": 5, "MAX_AGE": timedelta(days=1), "QUEUES": {"low": {"MAX_TASKS": 2}, "x": {}}}
        ).archive

        assert archive.limits("default") == ArchiveLimits(max_tasks=5, kept_s=86_400)
        assert archive.limits("low") == ArchiveLimits(max_tasks=2, kept_s=86_400)
        assert archive.limits("x") == archive.limits("default")

    def test_retention_settings_survive_a_copy(self) -> None:
        settings = Settings(archive={"QUEUES": {"low": {"MAX_TASKS": 2}}})

        assert replace(settings, prefix="shop").archive.limits("low").max_tasks == 2

    def test_the_environment_sets_a_json_value(self) -> None:
        environ = {"TASKQ_ARCHIVE": '{"MAX_TASKS": 7, "QUEUES": {"low": {"MAX_AGE": 60}}}'}

        archive = Settings.from_mapping({}, environ=environ).archive

        assert archive.limits("low") == ArchiveLimits(max_tasks=7, kept_s=60)


class TestEnvironment:
    def test_every_environment_variable_is_read(self) -> None:
        """`TASKQ_<KEY>` gives each key in text."""
        settings = Settings.from_mapping(
            {},
            environ={
                "HOME": "/root",
                "TASKQ_URL": "redis://example:1/2",
                "TASKQ_PREFIX": "shop",
                "TASKQ_QUEUES": "critical=6,low",
                "TASKQ_STRICT_PRIORITY": "Yes",
                "TASKQ_CONCURRENCY": "3",
                "TASKQ_SHUTDOWN_GRACE": "1.5",
                "TASKQ_UNKNOWN_TASK_TIMEOUT": "0",
                "TASKQ_DEFAULTS": '{"max_retry": 3}',
                "TASKQ_ENQUEUE": "immediate",
                "TASKQ_ENQUEUE_TIMEOUT": "0.5",
                "TASKQ_AUTODISCOVER": "off",
                "TASKQ_EAGER": "yes",
                "TASKQ_TRACE": '{"RELATION": "link"}',
            },
        )

        assert settings == Settings(
            url="redis://example:1/2",
            prefix="shop",
            queues={"critical": 6, "low": 1},
            strict_priority=True,
            concurrency=3,
            shutdown_grace=1.5,
            unknown_task_timeout=0.0,
            defaults={"max_retry": 3},
            enqueue=EnqueueMode.IMMEDIATE,
            enqueue_timeout=0.5,
            autodiscover=False,
            eager=True,
            trace=TraceSettings(relation=Relation.LINK),
        )

    def test_queues_can_be_json(self) -> None:
        settings = Settings.from_mapping({}, environ={"TASKQ_QUEUES": '{"a=b": 2}'})

        assert dict(settings.queues) == {"a=b": 2}

    def test_the_environment_overrides_the_mapping(self) -> None:
        settings = Settings.from_mapping({"CONCURRENCY": 1, "PREFIX": "shop"}, environ={"TASKQ_CONCURRENCY": "7"})

        assert (settings.concurrency, settings.prefix) == (7, "shop")

    @rows(
        ("variable", "text", "message"),
        [
            ("TASKQ_URI", "x", "unknown environment variable 'TASKQ_URI'; did you mean 'TASKQ_URL'?"),
            ("TASKQ_CONCURRENCY", "four", "TASKQ_CONCURRENCY must be a whole number, got 'four'"),
            ("TASKQ_CONCURRENCY", "-1", "TASKQ_CONCURRENCY must be a whole number, got '-1'"),
            ("TASKQ_CONCURRENCY", "²", "TASKQ_CONCURRENCY must be a whole number, got '²'"),
            ("TASKQ_CONCURRENCY", "9" * 5000, "TASKQ_CONCURRENCY must be a whole number, got '999"),
            ("TASKQ_CONCURRENCY", "0", "CONCURRENCY must be between 1 and 100000, got 0"),
            ("TASKQ_STRICT_PRIORITY", "maybe", "TASKQ_STRICT_PRIORITY must be true or false, got 'maybe'"),
            ("TASKQ_SHUTDOWN_GRACE", "soon", "TASKQ_SHUTDOWN_GRACE must be a number of seconds, got 'soon'"),
            ("TASKQ_ENQUEUE_TIMEOUT", "nan", "ENQUEUE_TIMEOUT must be at most 100 years, got nan"),
            ("TASKQ_DEFAULTS", "{", "TASKQ_DEFAULTS must be JSON, got '{'"),
            ("TASKQ_DEFAULTS", "[]", "DEFAULTS must be a dict of task options, got list"),
            ("TASKQ_QUEUES", "a=x", "TASKQ_QUEUES: the weight of queue 'a' must be a whole number, got 'x'"),
            ("TASKQ_QUEUES", "a,,b", "queue name must not be blank"),
            ("TASKQ_QUEUES", '{"a": "1"}', "QUEUES['a'] must be a whole number, got '1'"),
            ("TASKQ_URL", "", "URL must not be blank"),
        ],
    )
    def test_an_error_names_the_environment_variable(self, variable: str, text: str, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings.from_mapping({}, environ={variable: text})

        assert str(caught.value).startswith(message)

    def test_from_env_reads_the_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`TaskQ.from_env()` reads the process's environment, which overrides keyword arguments."""
        monkeypatch.setenv("TASKQ_URL", "redis://from-env:1/0")

        taskq = TaskQ.from_env(url="redis://given:1/0", concurrency=3)

        assert (taskq.settings.url, taskq.settings.concurrency) == ("redis://from-env:1/0", 3)

    def test_what_kubernetes_sets_for_a_service_of_our_name_is_ignored(self) -> None:
        links = ("TASKQ_PORT", "TASKQ_PORT_6379_TCP", "TASKQ_SERVICE_HOST", "TASKQ_SERVICE_PORT")

        assert Settings.from_mapping({}, environ=dict.fromkeys(links, "tcp://10.0.0.1:6379")) == Settings()

    def test_from_env_accepts_another_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TASKQ_CONCURRENCY", "9")

        assert TaskQ.from_env({}).settings.concurrency == 10


class TestParts:
    def test_parse_queues_reads_names_and_weights(self) -> None:
        assert parse_queues("critical=6, default=3 ,low") == {"critical": 6, "default": 3, "low": 1}

    def test_a_queue_name_can_contain_an_equals_sign(self) -> None:
        assert parse_queues("a=b=2") == {"a=b": 2}

    @rows("value", [True, False, "1", None, b"1", [1]])
    def test_a_duration_is_a_timedelta_or_a_number(self, value: object) -> None:
        with pytest.raises(ConfigurationError, match="x must be a timedelta or a number of seconds, got"):
            seconds("x", value)

    @rows("value", [10**400, 1e300, float("nan"), timedelta.max])
    def test_a_duration_is_at_most_100_years(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="x must be at most 100 years, got"):
            seconds("x", value)

    @rows("value", [-1, -0.001, timedelta(microseconds=-1)])
    def test_a_duration_is_not_negative(self, value: Any) -> None:
        with pytest.raises(ConfigurationError, match="x must be 0 or more seconds, got"):
            seconds("x", value)

    def test_durations_become_seconds(self) -> None:
        assert seconds("x", timedelta(minutes=1)) == 60.0
        assert seconds("x", 2) == 2.0

    def test_whole_numbers_are_parsed(self) -> None:
        check_whole("x", 1, least=1, most=1)
        with pytest.raises(ConfigurationError, match="x must be between 1 and 2, got 3"):
            check_whole("x", 3, least=1, most=2)

    def test_the_nearest_known_name_is_found_whatever_its_case(self) -> None:
        assert "did you mean 'Prefix'?" in str(unknown("thing", "PREFX", ["Prefix", "URL"]))

    def test_a_configuration_error_survives_pickling(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings(concurrency=0)

        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
