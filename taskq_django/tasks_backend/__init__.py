"""Django's own task interface, `django.tasks`, on taskq: the backend `taskq_django.TaskQBackend`.

Nothing here imports Django's framework before it is asked for: `settings` and `options` read the setting `TASKS`, and
only `backend` and the modules it imports need the framework itself.
"""
