"""The built-in cohort: a generator of synthetic patients and OCT B-scans, written in the form of the OLIVES release.

Phantom - not clinical evidence. The steps: patients and visits (`patients`), healthy eyes (`anatomy`), lesions in three
dimensions (`lesions`), B-scans with their labels (`section`), graders' errors (`grading`), rendering (`render`),
acquisition effects (`acquisition`, `speckle`), volumes and flaws (`study_plan`), files (`phantom_files`,
`phantom_writer`).
"""

from octdino.config.cohort import PhantomSettings
from octdino.phantom.phantom_writer import write_phantom

__all__ = ["PhantomSettings", "write_phantom"]
