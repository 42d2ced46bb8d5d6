from rap.adapters import METHODS, build, check, options  # noqa: F401


def names():
    return list(METHODS)


def method(name):
    return METHODS[name]
