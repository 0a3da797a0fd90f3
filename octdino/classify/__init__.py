"""The classify stage: store or embeddings, and labels → predictions, one folder per arm.

`octdino.classify.train_arm.classify` trains an arm, `octdino.classify.clinical` the clinical baseline. Nothing is
imported here: linear and kNN arms and the clinical baseline need no torch, the MLP no backbone.
"""
