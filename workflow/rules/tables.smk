"""Finished runs side by side."""


rule table:
    input:
        inputs("table"),
        stale=stale("table"),
    output:
        outputs("table"),
    log:
        log_of("table"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("table")
    resources:
        mem_mb=memory("table"),
        runtime=minutes("table"),
        gpu=gpus("table"),
    shell:
        command("table")
