"""Stage: does anything of the test patients reach what is trained, chosen or standardised?

`octdino.audit.run.audit` is the whole stage.
"""
