"""PANORAMA: how the data set numbers the pancreas and what surrounds it."""

ANATOMY_LABELS: dict[str, int] = {
    "background": 0,
    "PDAC": 1,
    "veins": 2,
    "arteries": 3,
    "parenchyma": 4,
    "pancreatic duct": 5,
    "common bile duct": 6,
}
"""Labels of the pancreas and what surrounds it, as the PANORAMA data set numbers them."""
