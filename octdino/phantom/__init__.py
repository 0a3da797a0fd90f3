"""The built-in cohort: synthetic patients, written as files in the form of the OLIVES release.

Phantom - not clinical evidence. From people (`people`) over eyes (`anatomy`), lesions in three dimensions (`lesions`),
slices with their labels (`section`), graders (`grading`), scans (`paint`, `camera`, `speckle`) to files (`plan`,
`files`, `write`).
"""

from octdino.config.cohort import PhantomSettings
from octdino.phantom.phantom_writer import write_phantom

__all__ = ["PhantomSettings", "write_phantom"]
