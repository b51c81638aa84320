"""Customers, their photos, and the work done on them in the background."""
