"""An app whose tasks are those of Django's own framework."""
