"""Find and repair damage in queues, in small steps. Workers, inspectors and the doctor run the steps."""
