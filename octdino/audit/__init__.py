"""The audit stage: leakage of test patients into training, selection or standardization → findings, verdict.

`leakage_audit.audit` is the whole stage, `audit_verdict.verdict` the check of its findings.
"""
