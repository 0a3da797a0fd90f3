"""Stage: does anything of the test patients reach what is trained, chosen or standardised?

`octdino.audit.leakage_audit.audit` is the whole stage.
"""
