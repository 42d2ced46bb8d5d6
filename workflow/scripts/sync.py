"""Record Snakemake's results in DVC: `make sync`.

Snakemake needs no such step, because its rules read the records of the results. DVC keeps its own list, dvc.lock. This
script adds the files to it, after `rap verify` found all of them undamaged and made with the present parameters, code
and inputs.
"""

import subprocess
import sys

from rap import graph, params, paths, verify
from rap.errors import UserError


def main() -> None:
    settings = params.load()
    graph.write_digests(settings)
    kept = (False, True) if paths.DVC_ABLATIONS.exists() else (False,)
    done = [ablations for ablations in kept if not verify.unfinished(settings, ablations)]
    if False not in done:
        job = verify.unfinished(settings, ablations=False)[0]
        raise UserError(f"sync: the default run is not finished: {job.record} is missing or stale; run either engine")
    for ablations in done:
        verify.run(settings, ablations)
    files = [str(paths.DVC_ABLATIONS if ablations else paths.DVC) for ablations in done]
    subprocess.run(["dvc", "commit", "--force", "--quiet", *files], check=True)
    print("sync: DVC and Snakemake are both up to date")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:
        sys.exit(f"sync: `{' '.join(error.cmd)}` failed")
