"""What models and results of octdino are meant for, and what they are not."""

RESEARCH = "For research: comparing ways of training, and as a start for further work on such scans."
NOT_FOR = (
    "Not for diagnosis, screening, treatment or any decision on a patient: it is no medical device, and nothing here "
    "was tried in practice."
)
