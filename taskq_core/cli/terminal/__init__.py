"""The terminal dashboard: what `taskq dash` shows. It needs the extra `dash`; nothing else imports it.

What is shown comes as records from `taskq_core.views`, and what is done goes through the inspector; a screen only
translates. One screen at a time is read, and the next look waits until the one before has ended, so that a slow Redis
is asked less and never twice at once. Whatever a producer put into Redis is shown as text: markup and control
characters are spelled out.
"""
