"""XLS-R + AASIST, the published detectors that this project began with; the network is in `model.py`."""

from antispoofing.detectors.family import Family
from model import AASIST, AASIST_HEAD

FAMILIES = (
    Family(AASIST_HEAD, "XLS-R + AASIST", ("LL.weight", "GAT_layer_S.att_weight"), AASIST, trainable=True),
)
