"""What a command reports instead of a traceback."""


class UsageError(Exception):
    """Something the user asked for cannot be done; the message is one sentence."""
