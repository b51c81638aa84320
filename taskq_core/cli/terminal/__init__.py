"""The terminal dashboard: what `taskq dash` shows. It needs the extra `dash`; nothing else imports it.

Screens show records from `taskq_core.views` and send actions through the inspector. Only the visible screen is read,
and the next read starts when the previous one has ended, so a slow Redis gets fewer requests and never two at once.
Data of producers is shown as text: markup and control characters are escaped.
"""
