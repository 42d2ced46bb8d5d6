"""From videos to cached features, shared by all variants."""


rule download:
    input:
        inputs("download"),
    output:
        outputs("download"),
    log:
        log_of("download"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("download")
    resources:
        mem_mb=memory("download"),
        runtime=minutes("download"),
        gpu=gpus("download"),
    shell:
        command("download")


rule backbone:
    input:
        inputs("backbone"),
    output:
        outputs("backbone"),
    log:
        log_of("backbone"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("backbone")
    resources:
        mem_mb=memory("backbone"),
        runtime=minutes("backbone"),
        gpu=gpus("backbone"),
    shell:
        command("backbone")


rule frames:
    input:
        inputs("frames"),
    output:
        outputs("frames"),
    log:
        log_of("frames"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("frames")
    resources:
        mem_mb=memory("frames"),
        runtime=minutes("frames"),
        gpu=gpus("frames"),
    shell:
        command("frames")


rule features:
    input:
        inputs("features"),
    output:
        outputs("features"),
    log:
        log_of("features"),
    conda:
        "../envs/rap.yaml"
    threads: threads_of("features")
    resources:
        mem_mb=memory("features"),
        runtime=minutes("features"),
        gpu=gpus("features"),
    shell:
        command("features")
