"""The errors that a user can cause and mend."""


class InputError(ValueError):
    """An input cannot be used. The message is one line: what, the value, what is accepted, what to do next.

    The command prints it and exits with a code other than 0, without a traceback.
    """


class MissingDependencyError(InputError, ImportError):
    """An optional package is needed; the message holds the pip command that installs it."""
