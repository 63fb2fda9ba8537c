"""The TwinTrack pipeline on trained nnU-Net v2 models: coarse region, ensemble, calibration.

Needs nnunetv2 and torch (``pip install 'twintrack[nnunet]'``), which are imported when used.
"""

from twintrack.nnunet.case_prediction import Prediction
from twintrack.nnunet.images import Image, read_image
from twintrack.nnunet.pipeline import Pipeline
from twintrack.nnunet.roi import Roi, RoiRule

__all__ = ["Image", "Pipeline", "Prediction", "Roi", "RoiRule", "read_image"]
