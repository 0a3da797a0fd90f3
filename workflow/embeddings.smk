# Which embeddings an arm and an explained network read, and what an arm starts from.


def trains_backbone(wildcards):
    """Whether an arm trains its backbone; all others read embeddings."""
    return wildcards.arm.endswith("-finetune")


def embeddings_of(wildcards):
    """The embeddings that an arm or an explained network reads: of the pretraining run that it starts from.

    Those of weights from outside depend on no seed: the first classifier seed stands for all.
    """
    init = init_in(wildcards)
    if wildcards.get("arm") and trains_backbone(wildcards):
        return []
    seed, seeds = int(wildcards.seed), settings.pretrain.seeds
    if init == "imagenet" or settings.published(init):
        seed = settings.classify.seeds[0]
    elif init != "scratch" and seed not in seeds:
        seed = seeds[0]
    return f"results/{COHORT}/embed/{init}/{wildcards.backbone}/fold{wildcards.fold}-seed{seed}/embeddings.h5"


def embed_settings(wildcards):
    """The section `embed`; without a size of its own that of the input of fine-tuned arms."""
    size = settings.embed.size or settings.classify.augment.global_size
    return as_json(settings.embed.model_dump(mode="json") | {"size": size})


def classify_model(wildcards):
    """The backbone of an arm that trains it; the others have it from their embeddings. It takes no input: tracked."""
    if not trains_backbone(wildcards):
        return ""
    return f"--model {shlex.quote(init_model(wildcards))}"


def classify_start(wildcards, input):
    """What an arm starts from, as the command takes it: embeddings, or the first weights of its backbone."""
    if input.embeddings:
        return f"--embeddings {shlex.quote(str(input.embeddings))}"
    return start_flag(wildcards, input)
