"""What keeps the studio healthy without anybody asking for it: backups, deletion of old data, checks of health."""
