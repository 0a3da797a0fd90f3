"""Column and label names of the published OLIVES tables, letter by letter; the phantom writes the same."""

LABEL_TABLE = "Biomarker_Clinical_Data_Images.csv"
CLINICAL_TABLE = "Clinical_Data_Images.xlsx"
PATH = "Path (Trial/Arm/Folder/Visit/Eye/Image Name)"
BIOMARKERS = (
    "Atrophy / thinning of retinal layers",
    "Disruption of EZ",
    "DRIL",
    "IR hemorrhages",
    "IR HRF",
    "Partially attached vitreous face",
    "Fully attached vitreous face",
    "Preretinal tissue/hemorrhage",
    "Vitreous debris",
    "VMT",
    "DRT/ME",
    "Fluid (IRF)",
    "Fluid (SRF)",
    "Disruption of RPE",
    "PED (serous)",
    "SHRM",
)

# IEEE SPS VIP Cup 2023: six of the sixteen under other names.
VIP_LABELS = "Training_Biomarker_Data.csv"
VIP_CLINICAL = "Training_Unlabeled_Clinical_Data.xlsx"  # the rows of CLINICAL_TABLE
VIP_TEST = "test_set_submission_template.csv"
VIP_PATH = "Path (Trial/Image Type/Subject/Visit/Eye/Image Name)"
VIP_BIOMARKERS = {
    "B1": "IR HRF",
    "B2": "Partially attached vitreous face",
    "B3": "Fully attached vitreous face",
    "B4": "Vitreous debris",
    "B5": "DRT/ME",
    "B6": "Fluid (IRF)",
}
