"""Fine-tuning on Modal.

modal deploy modal_fine_tune_advanced.py
modal run modal_fine_tune_advanced.py --detach
"""

from __future__ import annotations

from steps import step

import config
from ranksaga.backends.modal_cloud import app


@app.local_entrypoint()
def fine_tune(detach: bool = False, gpu: str = config.GPU) -> None:
    """Train all systems on all datasets and choose on dev; continues a training that was cut short."""
    step("select", gpu=gpu, detach=detach)
