"""Find damage in queues and repair it, step by step. Workers, inspectors and the doctor run the steps."""
