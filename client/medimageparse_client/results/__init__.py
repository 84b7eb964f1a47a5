"""What the server answers, as the caller sees, saves and draws it."""
