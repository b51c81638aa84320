"""The app with customers and photos, and with the tasks that process photos in the background."""
