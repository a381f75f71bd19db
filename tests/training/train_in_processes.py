"""What test_devices.py starts with torchrun: the command line, with a preset that has other settings.

    torchrun --nproc-per-node 2 tests/training/train_in_processes.py '{"epochs": 3}' train --preset tiny --out FOLDER

A process that ends well leaves FOLDER.RANK.json: what it has found in FOLDER at its end, and what its dropout began
with in the last epoch.
"""

import json
import os
import sys
from pathlib import Path

import torch

from bertrec_utils.__main__ import main
from bertrec_utils.settings import PRESETS

PRESETS["tiny"] |= json.loads(sys.argv[1])
main(sys.argv[2:])
found = sorted(path.name for path in Path(sys.argv[-1]).glob("[!.]*"))
torch.manual_seed(torch.initial_seed())
end = {"found": found, "random": torch.rand(4).tolist()}
Path(f"{sys.argv[-1]}.{os.environ.get('RANK', 0)}.json").write_text(json.dumps(end))
