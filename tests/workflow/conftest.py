"""The order of the tests."""


def pytest_collection_modifyitems(items: list) -> None:
    """The engines take longest: they start first, so that the rest runs beside them."""
    items.sort(key=lambda item: item.path.name != "test_engines.py")
