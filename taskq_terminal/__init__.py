"""The terminal dashboard: what `taskq dash` shows. This package needs the extra `dash`. Only `taskq dash` imports it.

Screens show records from `taskq_core.views` and send actions through the inspector. Only the data of the visible screen
is read. A read starts when the previous read has ended, so a slow Redis gets fewer requests and never two at the same
time. Data from Redis is shown as text: markup and control characters are escaped.
"""
