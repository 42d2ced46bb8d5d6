"""The tables that are made."""

from rap.params.params import Params, Table


def tables_of(params: Params) -> dict[str, Table]:
    """`params.tables`, and each table of one row of `run` that no other table of the default run has."""
    found = dict(params.tables)
    default = [table for table in found.values() if not params.ablations.keys() & set(table.variants)]
    shown = {name for table in default for name in table.variants}
    for name, table in params.listed.items():
        own = table.only(params.run)
        if name not in found and not shown.issuperset(own.variants):
            found[name] = own
            shown.update(own.variants)
    return {name: found[name] for name in params.listed if name in found}
