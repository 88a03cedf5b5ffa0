"""The exceptions users are meant to read: what was given, what was expected, what to do.

Programming errors keep Python's own exceptions.
"""


class UserError(ValueError):
    """Bad input from outside: a file, an option, a config.

    The message is a full sentence a user can act on; the command line prints it as one line and exits with
    code 2.
    """


class Interrupted(Exception):
    """The user stopped a long work and its state is saved; the message says how to go on.

    Attributes
    ----------
    what : what was stopped, in words.
    again : the command that goes on, "" where the caller knows it.
    """

    def __init__(self, what: str, again: str = "") -> None:
        super().__init__(f"{what}; go on with: {again}" if again else what)
        self.what, self.again = what, again
