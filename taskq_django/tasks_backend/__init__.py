"""Run tasks of Django's own framework, `django.tasks`, with the backend `taskq_django.TaskQBackend`.

Only `backend` and the modules that it imports need the framework, which Django 5.2 lacks. `options` reads the setting
`TASKS` without it.
"""
