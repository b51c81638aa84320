"""What no signal may tell."""

SECRET = "c4n4ry-hunter2"
