"""Migrations that create permissions, and no tables."""
