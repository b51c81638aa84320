"""The secret that no signal may contain."""

SECRET = "c4n4ry-hunter2"
