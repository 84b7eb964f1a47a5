"""Ten attacks on a running service, small ones: none may end it, fill its memory or read over its shoulder.

They lie with the tests, which run each against a server of their own; `make attack` runs them against yours.
"""
