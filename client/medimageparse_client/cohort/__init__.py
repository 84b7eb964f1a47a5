"""Hundreds to millions of volumes: each asked once, whatever ends the command or a server on the way."""
