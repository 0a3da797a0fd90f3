"""The classify stage: store or embeddings, and labels → predictions, one folder per arm.

`octdino.classify.train_arm.classify` trains an arm, `octdino.classify.clinical` the clinical baseline. Nothing is
imported here: arms on frozen features need no backbone, the clinical baseline no torch.
"""
