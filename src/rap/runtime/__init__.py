"""How a job runs: device, threads, several processes, prefetching."""
