"""Groups of cases: functions that each alter the decoder of decoder.py."""

GROUPS = {}


def case(group):
    """Registers a function that alters a decoder; what it returns, if anything, is the (model, data) to write."""

    def register(function):
        GROUPS.setdefault(group, []).append(function)
        return function

    return register
