"""Colors and fonts of all figures; imports nothing, for those that are drawn without matplotlib."""

# Okabe & Ito's colors, moved towards medium lightness: each has a contrast of 3 to white and to near-black.
FIXED = {"scratch": "#858585", "imagenet": "#b8860b", "clinical": "#b565a7"}
POOL = (
    "#2684d0", "#d9631e", "#139c77", "#7a6fd6", "#cc1a40", "#6b8210", "#0d7380", "#806640", "#a67373", "#26a60d",
    "#a61ad9", "#736680",
)  # fmt: skip
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# A figure's text and axes are dark on a light page and light on a dark one.
LOOK = (
    "<style>svg.octdino{color:#2b2b2b}@media screen and (prefers-color-scheme:dark){svg.octdino{color:#d4d4d4}}</style>"
)
