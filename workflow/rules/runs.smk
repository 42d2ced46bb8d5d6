"""A variant with one seed: training, then evaluation."""


rule train:
    input:
        MANIFEST,
        WEIGHTS,
        FRAMES,
        FEATURES,
        code=code("train"),
        pins=pins("train"),
    output:
        update(f"{RUN}/adapter.safetensors"),
        update(f"{RUN}/history.csv"),
        update(f"{RUN}/costs.json"),
        update(f"{RUN}/run.json"),
        touch(TRAIN_DONE),
    log:
        "logs/train-{group}-{variant}-{seed}.log",
    conda:
        "../envs/rap.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(720),
        gpu=GPU,
    shell:
        "rap train --variant {wildcards.variant} --seed {wildcards.seed} > {log} 2>&1"


rule evaluate:
    input:
        MANIFEST,
        WEIGHTS,
        FRAMES,
        FEATURES,
        TRAIN_DONE,
        adapter=f"{RUN}/adapter.safetensors",
        run=f"{RUN}/run.json",
        code=code("evaluate"),
        pins=pins("evaluate"),
    output:
        f"{RUN}/metrics.json",
        f"{RUN}/ranks.parquet",
        f"{RUN}/similarity.npy",
    log:
        "logs/evaluate-{group}-{variant}-{seed}.log",
    conda:
        "../envs/rap.yaml"
    threads: THREADS
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
        gpu=GPU,
    shell:
        "rap evaluate --variant {wildcards.variant} --seed {wildcards.seed} > {log} 2>&1"
