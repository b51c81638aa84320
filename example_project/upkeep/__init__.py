"""Keep the studio healthy by periodic tasks: backups, deletion of old data, health checks."""
