"""The embed stage: store + backbone → features (embeddings) of every scan, once per run.

`octdino.embed.embedding_stage.embed` is the whole stage; `octdino.data.embeddings` reads what it writes.
"""
