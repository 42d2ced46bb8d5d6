"""From videos to cached features: what all variants share."""


rule download:
    input:
        code=code("download"),
        pins=pins("download"),
    output:
        MANIFEST,
    log:
        "logs/download.log",
    conda:
        "../envs/rap.yaml"
    threads: PARAMS.runtime.workers
    resources:
        mem_mb=growing(2000),
        runtime=growing(720),
    shell:
        "rap download > {log} 2>&1"


rule backbone:
    input:
        code=code("backbone"),
        pins=pins("backbone"),
    output:
        WEIGHTS,
    log:
        "logs/backbone.log",
    conda:
        "../envs/rap.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    shell:
        "rap backbone > {log} 2>&1"


rule frames:
    input:
        MANIFEST,
        config=f"{BACKBONE}/config.json",
        code=code("frames"),
        pins=pins("frames"),
    output:
        update(f"{DATA}/frames/shard-{{shard}}.npy"),
        update(f"{DATA}/frames/shard-{{shard}}.parquet"),
        touch(FRAMES_DONE),
    log:
        "logs/frames-{shard}.log",
    conda:
        "../envs/rap.yaml"
    threads: PARAMS.runtime.workers
    resources:
        mem_mb=growing(2000),
        runtime=growing(240),
    shell:
        "rap frames --shard {wildcards.shard} > {log} 2>&1"


rule features:
    input:
        MANIFEST,
        WEIGHTS,
        FRAMES_DONE,
        frames=multiext(f"{DATA}/frames/shard-{{shard}}", ".npy", ".parquet"),
        code=code("features"),
        pins=pins("features"),
    output:
        update(f"{DATA}/features/{{cache}}/shard-{{shard}}.npy"),
        update(f"{DATA}/features/{{cache}}/shard-{{shard}}.parquet"),
        touch(FEATURES_DONE),
    log:
        "logs/features-{cache}-{shard}.log",
    conda:
        "../envs/rap.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
        gpu=GPU,
    shell:
        "rap features --cache {wildcards.cache} --shard {wildcards.shard} > {log} 2>&1"
