"""A variant with one seed: training, then evaluation."""


rule train:
    input:
        inputs("train"),
        stale=stale("train"),
    output:
        outputs("train"),
    log:
        log_of("train"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("train")
    resources:
        mem_mb=memory("train"),
        runtime=minutes("train"),
        gpu=gpus("train"),
    shell:
        command("train")


rule evaluate:
    input:
        inputs("evaluate"),
        stale=stale("evaluate"),
    output:
        outputs("evaluate"),
    log:
        log_of("evaluate"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("evaluate")
    resources:
        mem_mb=memory("evaluate"),
        runtime=minutes("evaluate"),
        gpu=gpus("evaluate"),
    shell:
        command("evaluate")
