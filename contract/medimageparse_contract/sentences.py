"""How sentences of the models begin by which client and gateway tell what happened."""

TOOK_TOO_LONG = "the request took longer than this server gives to one"
