"""`runworker` and `runscheduler`, and `taskq`: all of the command under a name that no other app takes."""
