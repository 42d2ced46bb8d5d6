"""Tools that the benchmarks share. A script in benchmarks/ imports them as `lib`."""
