"""How a job runs: device, threads, processes, prefetching."""
