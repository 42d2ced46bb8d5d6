"""The page of the default run."""


rule report:
    input:
        inputs("report"),
    output:
        outputs("report"),
    log:
        log_of("report"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("report")
    resources:
        mem_mb=memory("report"),
        runtime=minutes("report"),
        gpu=gpus("report"),
    shell:
        command("report")
