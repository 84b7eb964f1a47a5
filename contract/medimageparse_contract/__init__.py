"""Facts that server, client and export share, each said once. No dependencies."""
